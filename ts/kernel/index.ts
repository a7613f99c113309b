/** Between Thicket and the kernel's control plane. */
export { HostNet, type HostNetOptions, type Services } from './host-net.js';
export * from './kernel-net.js';
export { type KernelAddon, loadKernel } from './loader.js';
export type { EchoElement, Maps, ServiceElement } from './ruleset.js';
