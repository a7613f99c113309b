import { describe, expect, test } from '@jest/globals';
import type { DataPlane } from '../../ts/dataplane/data-plane.js';
import { type Choice, chooseBackend } from '../../ts/dataplane/loader.js';
import { version } from '../../ts/version.js';
import { packageOf, sourcesOf } from '../fixtures/sources.js';

const addon = { version: () => version, NativeDataPlane: class {} };
const wasm = (): DataPlane => ({ backend: 'wasm' }) as DataPlane;
const withNative: Choice = { sources: () => sourcesOf({ packages: { 'linux-x64-gnu': packageOf(() => addon) } }), wasm };
const without: Choice = { sources: () => sourcesOf({}), wasm };

describe('choosing a backend', () => {
  test('takes the native one where it loads, and has nothing to explain', () => {
    expect(chooseBackend({}, withNative)).toMatchObject({ name: 'native', from: '@thicket/linux-x64-gnu', shortfall: undefined });
    expect(chooseBackend({ THICKET_BACKEND: '' }, withNative).name).toBe('native');
    expect(chooseBackend({ THICKET_BACKEND: 'native' }, withNative).name).toBe('native');
  });

  test('takes WebAssembly where the native one does not load, and says why', () => {
    expect(chooseBackend({}, without)).toMatchObject({
      name: 'wasm',
      shortfall: expect.stringMatching(/^the native addon can't be loaded \(@thicket\/linux-x64-gnu isn't installed\): run npm install/),
    });
  });

  test('takes WebAssembly where it is asked for, without loading anything', () => {
    const never = (): never => {
      throw new Error('was asked');
    };
    expect(chooseBackend({ THICKET_BACKEND: 'wasm' }, { sources: never, wasm })).toMatchObject({
      name: 'wasm',
      shortfall: 'THICKET_BACKEND=wasm asks for it',
    });
  });

  test('a forced backend that is not there fails', () => {
    expect(() => chooseBackend({ THICKET_BACKEND: 'native' }, without)).toThrow(expect.objectContaining({ code: 'BACKEND_UNAVAILABLE' }));
    expect(() => chooseBackend({ THICKET_BACKEND: 'wasm' }, { ...withNative, wasm: undefined })).toThrow(
      /wasm backend is not in this version/,
    );
    expect(() => chooseBackend({ THICKET_BACKEND: 'quick' }, withNative)).toThrow(/THICKET_BACKEND=quick is not a backend/);
  });

  test('where there is none at all, says why the native one fails', () => {
    expect(() => chooseBackend({}, { ...without, wasm: undefined })).toThrow(/linux-x64-gnu isn't installed/);
  });

  test('an error that is not about loading is no reason to fall back', () => {
    const sources = (): never => {
      throw new RangeError('a bug');
    };
    expect(() => chooseBackend({}, { sources, wasm })).toThrow('a bug');
  });
});
