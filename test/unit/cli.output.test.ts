/** Figures and columns as people read them. */
import { bytes, day, duration, facts, list, milliseconds, oneLine, table } from '../../ts/cli/output.js';

describe('figures', () => {
  test.each([
    [0, '0 B'],
    [999, '999 B'],
    [1_000, '1.0 kB'],
    [99_940, '99.9 kB'],
    [99_960, '100 kB'],
    [999_499, '999 kB'],
    [999_500, '1.0 MB'],
    [1_234_567, '1.2 MB'],
    [5e9, '5.0 GB'],
    [2 ** 53, '9007 TB'],
  ])('%d bytes are %s', (count, text) => expect(bytes(count)).toBe(text));

  test.each([
    [0, '0s'],
    [59.9, '59s'],
    [60, '1m0s'],
    [3_599, '59m59s'],
    [3_600, '1h0m'],
    [86_399, '23h59m'],
    [90_000, '1d1h'],
  ])('%d seconds are %s', (seconds, text) => expect(duration(seconds)).toBe(text));

  test('what was not measured is a dash', () => {
    expect(milliseconds(null)).toBe('-');
    expect(milliseconds(0)).toBe('0.0 ms');
    expect(list([])).toBe('-');
    expect(list(['a', 'b'])).toBe('a,b');
  });

  test('a day is a date', () => expect(day(1_795_000_000)).toBe('2026-11-18'));
});

describe('columns', () => {
  test('are as wide as their widest cell, without blanks at the end', () => {
    expect(
      table(
        ['a', 'long head'],
        [
          ['longer', ''],
          ['b', 'c'],
        ],
      ),
    ).toBe('A       LONG HEAD\nlonger\nb       c');
  });

  test('facts without a value are left out', () => {
    expect(
      facts([
        ['a', '1'],
        ['longer', null],
        ['bc', '2'],
      ]),
    ).toBe('a   1\nbc  2');
  });

  test('a text of several lines becomes one', () => expect(oneLine(' a\n  b\r\n\nc\n')).toBe('a b c'));
});
