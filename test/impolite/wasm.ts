/** The WASM module (wasm/), as its shell there documents it. Built by `build_wasm` of scripts/common.sh. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { DataPlaneEvent, DataPlaneStats } from '../../ts/dataplane/data-plane.js';
import { type WasmBuild, wasmBuild, wasmFolder } from '../../ts/dataplane/wasm/build.js';

export interface AeadKey {
  seal(nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Uint8Array;
  open(nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Uint8Array | undefined;
  sealTrain(first: bigint, train: Uint8Array, stride: number): void;
  openTrain(first: bigint, train: Uint8Array, stride: number): number;
}

/** A train in the module's own memory. */
export interface WasmTrain {
  readonly at: number;
  readonly memory: { readonly buffer: ArrayBuffer };
  seal(key: AeadKey, first: bigint, stride: number): void;
  open(key: AeadKey, first: bigint, stride: number): number;
  free(): void;
}

export interface HopKey {
  tag(label: number, field: bigint, aeadTag: Uint8Array): Uint8Array;
}

export interface OutgoingDatagram {
  readonly socket: number;
  readonly host: string;
  readonly port: number;
  readonly bytes: Uint8Array;
  /** Forwarded for others; else made by this core. */
  readonly relayed: boolean;
}

export interface WasmCore {
  /** `name`: a method of `DataPlane`; its arguments in one object. */
  command(now: bigint, name: string, parameters: object): void;
  handleDatagram(now: bigint, socket: number, host: string, port: number, bytes: Uint8Array): void;
  handleTun(now: bigint, packet: Uint8Array): void;
  handleTimeout(now: bigint): void;
  takeDatagrams(): OutgoingDatagram[];
  takePackets(): Uint8Array[];
  takeEvents(): DataPlaneEvent[];
  stats(now: bigint): DataPlaneStats;
  free(): void;
}

export interface WasmModule {
  version(): string;
  WasmCore: new (nodeKey: Uint8Array, seed: Uint8Array, listening: boolean) => WasmCore;
  AeadKey: new (bytes: Uint8Array) => AeadKey;
  Train: new (length: number) => WasmTrain;
  /** What the module can seal with, the fastest first; `RustCrypto` is the last. */
  aeadKernels(): string[];
  /** `auto`, or one of them, for the whole module. Returns what seals from now on: `RustCrypto` where the wanted one fails its self-test. */
  chooseAead(name: string): string;
  HopKey: { new (bytes: Uint8Array): HopKey; derive(hopSecret: Uint8Array, label: number, fromInitiator: boolean): HopKey };
  counterField(slot: number, counter: bigint): bigint;
  dataPacket(sendKey: Uint8Array, field: bigint, label: number, hop: HopKey, inner: Uint8Array): Uint8Array;
  linkFrame(sendKey: Uint8Array, counter: bigint, index: number, frame: Uint8Array): Uint8Array;
  blake2b256(bytes: Uint8Array): Uint8Array;
  blake2b128(key: Uint8Array, bytes: Uint8Array): Uint8Array;
}

const load = (build: WasmBuild): WasmModule => createRequire(import.meta.url)(join(wasmFolder(build), 'thicket_wasm.js')) as WasmModule;

/** Both builds; Node.js has vectors wherever Thicket is tested. */
export const wasmModules: Readonly<Record<WasmBuild, WasmModule>> = { simd128: load('simd128'), scalar: load('scalar') };

/** The build that a node would take. */
export const wasm = wasmModules[wasmBuild()];
