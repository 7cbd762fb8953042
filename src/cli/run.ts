import { iscsiView } from '../api/index.js'
import { checkThresholds, count, formatBytes, iscsiUri, nbdUri, shownBytes } from '../manager/index.js'
import type { Volume } from '../store/index.js'
import { createLog } from './log.js'
import { LocalNode, type LocalNodeView } from './local-node.js'
import { print, printJson } from './output.js'
import type { UpOptions } from './up.js'

/** `ankole up`, once its options are read. */
export async function up(options: UpOptions, version: string): Promise<void> {
  const log = createLog(options.logLevel)
  const { data, disks, http, iscsi, demo, ioBackend, replicaGrace, replication } = options
  const node = new LocalNode({
    ...{ data, disks, http, iscsi, demo, ioBackend, replication, version, log },
    replicaGraceMs: replicaGrace,
    resyncBandwidth: options.resyncBandwidth,
    nbdPortFirst: options.volumePorts,
    diskThresholds: checkThresholds({ warningPercent: options.diskWarning, criticalPercent: options.diskCritical }),
  })
  const signal = nextSignal()
  try {
    const started = await Promise.race([node.start(), signal])
    if (typeof started !== 'string') {
      if (options.json) printJson(startedView(started, version))
      else print(banner(started, version))
      await signal
    }
    log.info({}, 'stopping')
  } catch (error) {
    await node.stop()
    throw error
  }
  await node.stop()
  log.info({}, 'stopped clean')
}

/** A second one ends the process at once; engines and disk hosts notice, and stop by themselves. */
function nextSignal(): Promise<string> {
  return new Promise((resolve) => {
    let first = true
    const onSignal = (name: string): void => {
      if (!first) process.exit(130)
      first = false
      resolve(name)
    }
    for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, onSignal)
  })
}

function startedView({ url, path, node, ioBackend, volumes, faces }: LocalNodeView, version: string): object {
  return {
    ...{ version, url, data: path, node: node.metadata.name, ioBackend },
    iscsi: { portal: faces.portal },
    volumes: volumes.map((volume) => ({
      name: volume.metadata.name,
      state: volume.status.state,
      iscsi: isAttached(volume) ? iscsiView(volume, faces.portal) : null,
      nbd: isAttached(volume) ? { uri: nbdUri(volume, faces.nbdHost) } : null,
    })),
  }
}

function isAttached({ status }: Volume): boolean {
  return status.state === 'attached'
}

const volumesShownMax = 8

export function banner(
  { url, path, node, ioBackend, volumes, faces, demoIsNew }: LocalNodeView,
  version: string,
): string {
  const name = node.metadata.name
  const lines = [
    `Ankole ${version} runs on ${name}: ${count(node.spec.disks.length, 'disk')} under ${path}/disks, io back end ${ioBackend}.`,
    '',
    `  API      ${url}  (also /healthz, /metrics, /v1/openapi.json)`,
    `  iSCSI    ${faces.portal}  (the portal: discovery, and the way to every volume)`,
  ]
  for (const volume of volumes.slice(0, volumesShownMax)) {
    const { metadata, spec, status } = volume
    const more = isAttached(volume) ? status.robustness : status.message
    const state = more === '' ? status.state : `${status.state}, ${more}`
    const replicas = count(spec.numberOfReplicas, 'replica')
    lines.push(`  volume   ${metadata.name}: ${formatBytes(shownBytes(volume))}, ${replicas}, ${state}`)
    if (!isAttached(volume)) continue
    for (const uri of [iscsiUri(metadata.name, faces.portal), nbdUri(volume, faces.nbdHost)]) {
      lines.push(`           ${uri}`)
    }
  }
  if (volumes.length > volumesShownMax) lines.push(`  and ${count(volumes.length - volumesShownMax, 'other volume')}`)
  lines.push(
    '',
    'Next, in another terminal:',
    ...nextCommands({ volumes, faces, demoIsNew }).map((line) => `  ${line}`),
  )
  lines.push('', 'Ctrl-C stops it; all data stays.')
  return lines.join('\n')
}

function nextCommands({ volumes, faces, demoIsNew }: Pick<LocalNodeView, 'volumes' | 'faces' | 'demoIsNew'>): string[] {
  const volume = volumes.find(isAttached)
  if (!volume) {
    const [first] = volumes
    if (first) return [`ankole volume attach ${first.metadata.name}`, 'ankole status']
    return ['ankole volume create first --size 1GiB', 'ankole volume attach first', 'ankole status']
  }
  const uri = nbdUri(volume, faces.nbdHost)
  // Writes only to what was made a moment ago: on everything else there may be data.
  const rw = demoIsNew ? 'randrw' : 'randread'
  return [
    `iscsi-ls -s iscsi://${faces.portal}`,
    `nbdinfo ${uri}`,
    `fio --name=try --ioengine=nbd --uri=${uri} --rw=${rw} --bs=4k --iodepth=32 --time_based --runtime=10`,
  ]
}
