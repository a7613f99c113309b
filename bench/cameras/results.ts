/** What bench/cameras measures. */

export interface CameraRun {
  readonly round: number;
  readonly streams: number;
  /** `thicket`, or `no tunnel`: the same hosts without one. */
  readonly tunnel: string;
  readonly packets: number;
  readonly lost: number;
  /** Packets that came after later ones of their stream. */
  readonly late: number;
  readonly duplicates: number;
  /** Milliseconds from the camera's call of send to the viewer's return from receive. */
  readonly delay: { readonly median: number; readonly p99: number; readonly most: number };
  /** Of one processor: what the relay's process used of it. */
  readonly relayBusyPercent: number;
  readonly load: number;
}

export interface Cameras {
  readonly bitsPerSecond: number;
  readonly packetBytes: number;
  readonly framesPerSecond: number;
  readonly seconds: number;
  readonly rounds: number;
  readonly runs: readonly CameraRun[];
}
