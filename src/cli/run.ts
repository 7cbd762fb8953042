import { count, formatBytes } from '../manager/index.js'
import { createLog } from './log.js'
import { LocalNode, type LocalNodeView } from './local-node.js'
import { print, printJson } from './output.js'
import type { UpOptions } from './up.js'
import { formatHostPort } from './values.js'

/** `ankole up`, once its options are read. */
export async function up(options: UpOptions, version: string): Promise<void> {
  const log = createLog(options.logLevel)
  const { data, disks, http, demo, ioBackend, replicaGrace, replication, iscsi } = options
  if (iscsi)
    log.warn({}, `--iscsi ${formatHostPort(iscsi)}: volumes are not served by iSCSI in this release, only by NBD`)
  const node = new LocalNode({
    ...{ data, disks, http, demo, ioBackend, replication, version, log },
    replicaGraceMs: replicaGrace,
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

function startedView({ url, path, node, ioBackend, volumes, nbdHost }: LocalNodeView, version: string): object {
  return {
    ...{ version, url, data: path, node: node.metadata.name, ioBackend },
    volumes: volumes.map(({ metadata, status, nbdPort }) => ({
      name: metadata.name,
      state: status.state,
      nbd: status.state === 'attached' ? { uri: `nbd://${nbdHost}:${nbdPort}/${metadata.name}` } : null,
    })),
  }
}

const volumesShownMax = 8

export function banner(
  { url, path, node, ioBackend, volumes, nbdHost, demoIsNew }: LocalNodeView,
  version: string,
): string {
  const name = node.metadata.name
  const lines = [
    `Ankole ${version} runs on ${name}: ${count(node.spec.disks.length, 'disk')} under ${path}/disks, io back end ${ioBackend}.`,
    '',
    `  API      ${url}  (also /healthz, /metrics, /v1/openapi.json)`,
  ]
  for (const { metadata, spec, status, nbdPort } of volumes.slice(0, volumesShownMax)) {
    const where = status.state === 'attached' ? `  nbd://${nbdHost}:${nbdPort}/${metadata.name}` : ''
    const more = status.state === 'attached' ? status.robustness : status.message
    const state = more === '' ? status.state : `${status.state}, ${more}`
    const replicas = count(spec.numberOfReplicas, 'replica')
    lines.push(`  volume   ${metadata.name}: ${formatBytes(spec.sizeBytes)}, ${replicas}, ${state}${where}`)
  }
  if (volumes.length > volumesShownMax) lines.push(`  and ${count(volumes.length - volumesShownMax, 'other volume')}`)
  lines.push(
    '',
    'Next, in another terminal:',
    ...nextCommands({ volumes, nbdHost, demoIsNew }).map((line) => `  ${line}`),
  )
  lines.push('', 'Ctrl-C stops it; all data stays.')
  return lines.join('\n')
}

function nextCommands({
  volumes,
  nbdHost,
  demoIsNew,
}: Pick<LocalNodeView, 'volumes' | 'nbdHost' | 'demoIsNew'>): string[] {
  const volume = volumes.find(({ status }) => status.state === 'attached')
  if (!volume) {
    const [first] = volumes
    if (first) return [`ankole volume attach ${first.metadata.name}`, 'ankole status']
    return ['ankole volume create first --size 1GiB', 'ankole volume attach first', 'ankole status']
  }
  const uri = `nbd://${nbdHost}:${volume.nbdPort}/${volume.metadata.name}`
  // Writes only to what was made a moment ago: on everything else there may be data.
  const rw = demoIsNew ? 'randrw' : 'randread'
  return [
    `nbdinfo ${uri}`,
    `qemu-img info ${uri}`,
    `fio --name=try --ioengine=nbd --uri=${uri} --rw=${rw} --bs=4k --iodepth=32 --time_based --runtime=10`,
  ]
}
