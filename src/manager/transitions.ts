// What the log says of volumes that changed.
import type { Volume } from '../store/index.js'
import { formatHostPort, iscsiUri, nbdUri } from './addresses.js'
import type { Logger } from './context.js'
import type { PlanOptions } from './node-plan.js'
import { count } from './placement.js'
import { formatBytes } from './volume-spec.js'

export function logScrub(log: Logger, { metadata, scrub }: Volume, endedBefore: string | undefined): void {
  const { last } = scrub ?? {}
  if (last === undefined || last.endedAt === endedBefore) return
  const { repairedBlocks, corruptBlocks, differingBlocks, regionsFailed } = last
  const isFine = corruptBlocks + differingBlocks + regionsFailed === 0
  log[isFine ? 'info' : 'warn'](
    { volume: metadata.name, ...last },
    `scrub has ended: ${count(repairedBlocks, 'damaged block')} repaired, ${corruptBlocks} damaged at all replicas, ` +
      `${differingBlocks} not the same at all`,
  )
}

export function logTrim(log: Logger, { metadata, trim }: Volume, endedBefore: string | undefined): void {
  const { last } = trim ?? {}
  if (last === undefined || last.endedAt === endedBefore) return
  const { outcome, unmappedBytes, failedBytes } = last
  const isFine = outcome !== 'interrupted' && failedBytes === 0
  const how = { done: 'has ended', stopped: 'is stopped', interrupted: 'was interrupted' }[outcome]
  const failed = failedBytes === 0 ? '' : `, and ${formatBytes(failedBytes)} could not be looked at`
  log[isFine ? 'info' : 'warn'](
    { volume: metadata.name, ...last },
    `trim ${how}: ${formatBytes(unmappedBytes)} of zeros unmapped${failed}`,
  )
}

export function logTransition(log: Logger, plan: PlanOptions, before: Volume, after: Volume): void {
  const { metadata, spec, status } = after
  if (before.status.state === status.state) return
  const fields = { volume: metadata.name, ...(spec.nodeID === null ? {} : { node: spec.nodeID }) }
  if (status.state === 'attached') {
    const portal = formatHostPort({ ...plan.iscsi.listen, host: plan.iscsi.host })
    const addresses = { iscsi: iscsiUri(metadata.name, portal), nbd: nbdUri(after, plan.nbdHost) }
    log.info({ ...fields, ...addresses }, 'volume attached')
  } else if (status.state === 'detached' && before.status.state !== 'creating') {
    log.info(fields, 'volume detached')
  } else if (status.state === 'faulted') {
    log.warn(fields, `volume faulted: ${status.message}`)
  }
}
