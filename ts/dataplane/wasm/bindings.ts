/** What the WASM module exports of its data plane (wasm/src/plane), as its shell there documents it. */
import type { DataPlaneEvent, DataPlaneStats } from '../data-plane.js';

/** An address at the far side of a socket of ours. */
export interface Remote {
  readonly socket: number;
  readonly host: string;
  readonly port: number;
}

/** Times are whole microseconds, from 1,000,000 on; places are bytes of the module's memory. */
export interface WasmPlane {
  readonly input: number;
  readonly inputRoom: number;
  readonly index: number;
  readonly indexRoom: number;
  readonly table: number;
  intern(socket: number, host: string, port: number): number | undefined;
  address(number: number): Remote | undefined;
  forgetAddresses(): void;
  command(now: number, name: string, parameters: object): void;
  receive(now: number, count: number): void;
  handleTimeout(now: number): void;
  pollTimeout(): number;
  ready(): number;
  sent(lost: number): void;
  log(level: string, message: string): void;
  takeEvents(most: number): DataPlaneEvent[];
  stats(now: number): DataPlaneStats;
}

export interface PlaneModule {
  version(): string;
  planeMemory(): { readonly buffer: ArrayBuffer };
  WasmPlane: new (nodeKey: Uint8Array, seed: Uint8Array, listening: boolean) => WasmPlane;
}
