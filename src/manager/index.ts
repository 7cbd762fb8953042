export * from './manager.js'
export type { Logger, ManagerOptions, NodeAgent, NodeUsage } from './context.js'
export type { CloneVolume, VolumeRequest } from './volume-maker.js'
export * from './addresses.js'
export * from './chap.js'
export * from './volume-spec.js'
export { cloneMakingMsMax, isBeingMade } from './clones.js'
export { isReadOnly, type AdoptionRequest } from './adoption.js'
export { shownBytes } from './expansion.js'
export { scrubDueMs, scrubSettings } from './scrub.js'
export type { Changes } from './snapshot-contents.js'
export type { SnapshotRequest } from './snapshot-keeper.js'
export type { VolumeSettings } from './volume-settings.js'
export {
  checkThresholds,
  diskLevels,
  diskThresholdsDefault,
  usedPercent,
  type DiskLevel,
  type DiskThresholds,
} from './thresholds.js'
export { transferMessage } from './transfer.js'
export type { SalvagePlan } from './salvage.js'
export { freePort, nbdPortFirst, replicationPortFirst } from './ports.js'
export { clusterNodes, isReady, observeEngine } from './observation.js'
export { count } from './placement.js'
export type { IscsiAddresses, PlanOptions } from './node-plan.js'
