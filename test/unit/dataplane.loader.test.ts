import { describe, expect, test } from '@jest/globals';
import { loadAddon } from '../../ts/dataplane/loader.js';
import { version } from '../../ts/version.js';

const good = { version: () => version, NativeDataPlane: class {} };

describe('loading the native addon', () => {
  test('takes an addon of the same version', () => {
    expect(loadAddon({}, () => good)).toBe(good);
    expect(loadAddon({ THICKET_BACKEND: 'native' }, () => good)).toBe(good);
  });

  test('refuses an addon of another version, naming both', () => {
    const other = { ...good, version: () => '9.9.9' };
    expect(() => loadAddon({}, () => other)).toThrow(/9\.9\.9.*npm run build/);
  });

  test('says why it cannot load and what to do', () => {
    const broken = (): never => {
      throw new Error('ELF header\nsecond line');
    };
    expect(() => loadAddon({}, broken)).toThrow("the native addon can't be loaded (ELF header): run npm run build");
  });

  test('a forced backend that is not there fails', () => {
    expect(() => loadAddon({ THICKET_BACKEND: 'wasm' }, () => good)).toThrow(/wasm/);
    expect(() => loadAddon({ THICKET_BACKEND: 'quick' }, () => good)).toThrow(/quick/);
  });
});
