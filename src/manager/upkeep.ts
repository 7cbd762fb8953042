// What is done to attached volumes beside their I/O, as somebody asked for it: scrubs and trims, which the engine carries
// out as the plan says. The schedule's own scrubs are begun by the manager's passes.
import { AnkoleError } from '../api/errors.js'
import type { ScrubFindings, TrimCounts, Volume } from '../store/index.js'
import { refuseReadOnly } from './adoption.js'
import { countersOf, type ClusterView } from './context.js'
import { beginScrub, endScrub } from './scrub.js'
import { logTrim } from './transitions.js'
import { beginTrim, endTrim } from './trim.js'
import { checkBandwidth } from './volume-spec.js'

/** How far it is; undefined: there is none. */
export interface UpkeepProgress<Progress> {
  volume: Volume
  progress: Progress | undefined
}

/** Wants all of an attached volume compared at all replicas, from its beginning, and what is damaged repaired. */
export async function scrub(cluster: ClusterView, name: string, bandwidth: number): Promise<Volume> {
  refuseDetached(cluster.volume(name), 'scrubbed')
  checkBandwidth(bandwidth, 'a scrub')
  const volume = await cluster.change(name, (volume) => {
    volume.scrub = beginScrub(volume.scrub, Date.now(), bandwidth)
    return true
  })
  cluster.options.log.info({ volume: name, bandwidth }, 'scrub is begun')
  return volume
}

/** Ends the scrub that is under way, asked for or of the schedule; that goes on with the next one. */
export async function stopScrub(cluster: ClusterView, name: string): Promise<Volume> {
  refuseDetached(cluster.volume(name), 'scrubbed')
  const volume = await cluster.change(name, (volume) => {
    if (volume.scrub?.current === undefined) return false
    volume.scrub = endScrub(volume.scrub)
    return true
  })
  cluster.options.log.info({ volume: name }, 'scrub is stopped')
  return volume
}

export async function scrubProgress(cluster: ClusterView, name: string): Promise<UpkeepProgress<ScrubFindings>> {
  refuseDetached(cluster.volume(name), 'scrubbed')
  const engine = await countersOf(cluster, cluster.volume(name))
  const volume = cluster.volume(name)
  return { volume, progress: newest<ScrubFindings>(engine?.scrub, volume.scrub?.current) }
}

/** Wants what takes up space in an attached volume and holds nothing but zeros given back. Throws busy: it is already. */
export async function trim(cluster: ClusterView, name: string, bandwidth: number): Promise<Volume> {
  refuseReadOnly(cluster.volume(name), 'It cannot be trimmed')
  refuseDetached(cluster.volume(name), 'trimmed')
  checkBandwidth(bandwidth, 'a trim')
  const volume = await cluster.change(name, (volume) => {
    volume.trim = beginTrim(volume, Date.now(), bandwidth)
    return true
  })
  cluster.options.log.info({ volume: name, bandwidth }, 'trim is begun')
  return volume
}

/** Ends the one that is under way; what it gave back stays so. Where there is none, nothing happens. */
export async function stopTrim(cluster: ClusterView, name: string): Promise<Volume> {
  const before = cluster.volume(name).trim?.last
  const volume = await cluster.change(name, (volume) => {
    if (volume.trim?.current === undefined) return false
    volume.trim = endTrim(volume.trim.current, 'stopped', Date.now())
    return true
  })
  logTrim(cluster.options.log, volume, before?.endedAt)
  return volume
}

export async function trimProgress(cluster: ClusterView, name: string): Promise<UpkeepProgress<TrimCounts>> {
  const before = cluster.volume(name)
  if (before.trim?.current === undefined) return { volume: before, progress: undefined }
  const engine = await countersOf(cluster, before)
  const volume = cluster.volume(name)
  return { volume, progress: newest<TrimCounts>(engine?.trim, volume.trim?.current) }
}

/** As the engine says, where that answers, and else as it was kept. */
function newest<Progress>(
  engine: (Progress & { id: string }) | undefined,
  kept: (Progress & { begunAt: string }) | undefined,
): Progress | undefined {
  return engine !== undefined && engine.id === kept?.begunAt ? engine : kept
}

function refuseDetached({ metadata, status }: Volume, done: string): void {
  if (status.state === 'attached') return
  throw new AnkoleError('volume-not-attached', `Volume ${metadata.name} cannot be ${done}: it is ${status.state}.`)
}
