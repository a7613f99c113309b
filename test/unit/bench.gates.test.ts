import { instructions } from '../../bench/gates/instructions.js';
import { deviations, type Figures, RECORD, readRecorded } from '../../bench/gates/recorded.js';
import { sizes } from '../../bench/gates/sizes.js';

const counts = { seal: 1_000, relay: 100, open: 1_000 };
const figures = (seal: number, size: number): Figures => ({
  instructions: { ring: { bulk: { ...counts, seal } } },
  bytes: { addon: size },
});

describe('the gates', () => {
  test('instructions per sealed, relayed and opened packet and sizes are as recorded', async () => {
    const lines = deviations(readRecorded(), { instructions: await instructions(), bytes: sizes() });
    const hint = lines.length === 0 ? [] : [`if that is meant to be so: ${RECORD}`];
    expect([...lines, ...hint]).toEqual([]);
  }, 600_000);

  test('three per cent more or less pass, four do not', () => {
    const was = figures(1_000, 1_000);
    expect(deviations(was, figures(1_029, 1_029))).toEqual([]);
    expect(deviations(was, figures(971, 500))).toEqual([]);
    expect(deviations(was, figures(1_040, 1_000))).toEqual(['instructions to seal a packet, ring, bulk: 1040, recorded 1000 (+4.0 %)']);
    expect(deviations(was, figures(960, 1_000))).toEqual(['instructions to seal a packet, ring, bulk: 960, recorded 1000 (−4.0 %)']);
    expect(deviations(was, figures(1_000, 1_060))).toEqual(['addon: 1060 bytes, recorded 1000 (+6.0 %)']);
  });

  test('what only one side has is told, but for instructions of another processor', () => {
    const none: Figures = { instructions: {}, bytes: {} };
    expect(deviations(figures(1_000, 1_000), none)).toEqual(['addon: not there, recorded 1000 bytes']);
    expect(deviations(none, figures(1_000, 1_000))).toHaveLength(4);
  });
});
