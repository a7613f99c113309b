/** Messages repeat what was written, but for naming secrets. */
import { expect, test } from '@jest/globals';
import { ThicketError, withoutSecrets } from '../../ts/errors.js';

const ID = 'y7huvwjdkdkaycayesguop6rsmf74prolfqkpegxbtyvhf2ppelj'.slice(0, 52);
const SECRET = 'hf7q5xftv2njvstlrhndfcki4m';

test.each([
  [`"${ID}.${SECRET}" names nobody`, `"${ID}.…" names nobody`],
  [`"${ID}.${SECRET}x" names nobody`, `"${ID}.…" names nobody`],
  [`"${ID}.${SECRET.slice(0, -1)}" names nobody`, `"${ID}.…" names nobody`],
  [`group:family@${ID.toUpperCase()}.${SECRET.toUpperCase()} may`, `group:family@${ID.toUpperCase()}.… may`],
  [`unknown key "networks.${ID}.${SECRET}"`, `unknown key "networks.${ID}.…"`],
  [`"${SECRET}" is not a key`, '"…" is not a key'],
  [`*${SECRET}: alias`, '*…: alias'],
])('%s', (text, expected) => {
  expect(withoutSecrets(text)).toBe(expected);
  expect(new ThicketError('BAD_KEY', text).message).toBe(expected);
});

test.each([
  `"camera.${ID}.thicket" is not a name`,
  `${ID} is not trusted`,
  `/srv/${SECRET}/thicket.yaml can't be read`,
  'no service camera is exposed here',
])('says all of: %s', (text) => expect(withoutSecrets(text)).toBe(text));
