/** From a configuration file and a state directory to a running node. */

import type { Logger } from 'pino';
import { type Config, LocalChanges } from '../config/index.js';
import { type ControlHost, openControl, type ReloadDocument } from '../control/index.js';
import type { DataPlaneEvent } from '../dataplane/index.js';
import { ThicketError } from '../errors.js';
import type { InUse } from '../naming/index.js';
import { NodeStore, type PublicKey } from '../trust/index.js';
import type { Answers } from './answers.js';
import { systemClock } from './clock.js';
import { openLog } from './log.js';
import { Node } from './node.js';
import type { Outward } from './outward.js';
import { takePlace } from './place.js';
import { Undo } from './undo.js';
import type { Uplink } from './uplink.js';

export interface NodeOptions {
  /** Reads the configuration, now and at each reload. Throws BAD_CONFIG. */
  readonly configure: () => Config;
  readonly stateFolder: string;
  /** Where the log goes; default standard error. */
  readonly openLog?: (level: Config['log']['level']) => Promise<Logger>;
}

export interface RunningNode {
  readonly key: PublicKey;
  /** What programs in this process reach the overlay by, and what they answer for. */
  readonly outward: Outward;
  readonly answers: Answers;
  readonly uplink: Uplink;
  readonly control: ControlHost;
  /** Reads the configuration again. Throws BAD_CONFIG, and then nothing has changed. */
  reload(): Promise<ReloadDocument>;
  /** Leaves the host as it was. */
  stop(): Promise<void>;
  /** Rejects when the node can't go on; never resolves. */
  readonly failed: Promise<never>;
}

/** Starts a node. Throws a ThicketError, with everything undone, when it can't. */
export async function startNode(options: NodeOptions): Promise<RunningNode> {
  const undo = new Undo();
  try {
    const store = NodeStore.open(options.stateFolder);
    const config = options.configure();
    const local = LocalChanges.open(options.stateFolder);
    const log = await (options.openLog ?? openLog)(config.log.level);
    let node: Node | undefined;
    // First of all the socket: a second node on this state must not touch anything.
    const control = await openControl(config.control.socket, () => {
      if (node === undefined) throw new ThicketError('BUSY', 'the node is starting: try again');
      return node.control;
    });
    undo.push(() => control.close());
    const membership = store.membership(systemClock.wallSeconds());
    // Until the node is there to hear it: what the data plane says of the machine, or of its end.
    const early: DataPlaneEvent[] = [];
    let deliver = (event: DataPlaneEvent): void => {
      if (event.type === 'log' || event.type === 'fatal') early.push(event);
    };
    let inUse: () => Promise<InUse> = () => Promise.resolve(() => true);
    const place = await takePlace(
      {
        config,
        stateFolder: options.stateFolder,
        pair: store.pair,
        clock: systemClock,
        log,
        inUse: () => inUse(),
        onEvent: (event) => deliver(event),
      },
      undo,
    );
    const running = new Node({ ...options, store, local, log, place, fileConfig: config, membership, epoch: store.nextEpoch(), undo });
    deliver = (event) => running.handle(event);
    for (const event of early) deliver(event);
    inUse = () => running.inUse();
    await running.open();
    node = running;
    return running;
  } catch (error) {
    await undo.run(() => {});
    throw error;
  }
}
