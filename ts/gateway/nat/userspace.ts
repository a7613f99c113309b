/** NAT's twin in user-space mode: targets go to the data plane with each session's policy, which connects ordinary sockets and cuts what a policy ends. */
import type { Translation } from '../lan.js';
import { natMaps } from './index.js';

export const userSpaceTranslation: Translation = {
  async apply(services) {
    // What can't be with a TUN can't be here.
    natMaps(services);
  },
  async cut() {},
};
