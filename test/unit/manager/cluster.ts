import { join } from 'node:path'
import type { Test } from 'tap'
import { Manager, type ManagerOptions, type VolumeRequest } from '../../../src/manager/index.js'
import { SqliteStore, type Snapshot, type Volume } from '../../../src/store/index.js'
import { FakeAgent } from './fake-agent.js'

export interface Cluster {
  store: SqliteStore
  manager: Manager
  agent: FakeAgent
  options: ManagerOptions
  log: string[]
  /** Waits until the volume is as the test wants it. */
  until: (name: string, done: (volume: Volume) => boolean) => Promise<Volume>
  untilState: (name: string, state: Volume['status']['state']) => Promise<Volume>
  gone(name: string): Promise<true>
  /** Waits until the snapshot of the volume «demo» is as the test wants it. */
  untilSnapshot: (name: string, state: Snapshot['state']) => Promise<Snapshot>
  snapshotGone: (name: string) => Promise<true>
  /** Stops the manager, and starts one anew on the same store with processes that have all ended. */
  restart(): Promise<void>
}

export async function aCluster(t: Test, given: { disks?: number } = {}): Promise<Cluster> {
  const store = SqliteStore.open(join(t.testdir(), 'ankole.db'))
  const disks = Array.from({ length: given.disks ?? 3 }, (_, index) => ({
    ...{ id: `disk-${index + 1}`, path: `/data/disks/disk-${index + 1}`, allowScheduling: true },
  }))
  await store.create('Node', {
    metadata: { name: 'node-1' },
    spec: { address: '127.0.0.1', allowScheduling: true, disks },
  })
  const log: string[] = []
  const line = (level: string) => (fields: object, message: string) => {
    log.push(`${level} ${message} ${JSON.stringify(fields)}`)
  }
  const start = async (agent: FakeAgent): Promise<{ manager: Manager; options: ManagerOptions }> => {
    const options: ManagerOptions = {
      store,
      agents: new Map([['node-1', agent]]),
      plan: {
        ...{ replication: 'unix', nbdHost: '127.0.0.1', lateMs: 1000 },
        socketPath: (disk) => `/run/${disk}.sock`,
        iscsi: { listen: { host: '127.0.0.1', port: 3260 }, host: '127.0.0.1' },
      },
      log: { info: line('info'), warn: line('warn'), error: line('error') },
    }
    return { manager: await Manager.start(options), options }
  }
  const agent = new FakeAgent('node-1')
  const cluster: Cluster = {
    ...{ store, agent, log },
    ...(await start(agent)),
    until: (name, done) =>
      cluster.manager.waitFor(`the wanted ${name}`, 5000, () => {
        const volume = cluster.manager.volume(name)
        return done(volume) ? volume : undefined
      }),
    untilState: (name, state) => cluster.until(name, ({ status }) => status.state === state),
    gone: (name) =>
      cluster.manager.waitFor(`end of ${name}`, 5000, () =>
        cluster.manager.volumes().some(({ metadata }) => metadata.name === name) ? undefined : true,
      ),
    untilSnapshot: (name, state) =>
      cluster.manager.waitFor(`${state} snapshot ${name}`, 5000, () =>
        cluster.manager.snapshots('demo').find(({ spec, state: is }) => spec.name === name && is === state),
      ),
    snapshotGone: (name) =>
      cluster.manager.waitFor(`end of snapshot ${name}`, 5000, () =>
        cluster.manager.snapshots('demo').some(({ spec }) => spec.name === name) ? undefined : true,
      ),
    restart: async () => {
      await cluster.manager.stop()
      const { layersOf } = cluster.agent
      cluster.agent = new FakeAgent('node-1')
      cluster.agent.layersOf = layersOf // They are on disk.
      Object.assign(cluster, await start(cluster.agent))
    },
  }
  t.teardown(async () => {
    await cluster.manager.stop()
    await store.close()
  })
  await cluster.manager.waitFor('first plan', 5000, () => true)
  await new Promise((resolve) => setTimeout(resolve, 20))
  return cluster
}

export function aRequest(given: Partial<VolumeRequest> = {}): VolumeRequest {
  return { name: 'demo', sizeBytes: 1024 ** 3, numberOfReplicas: 3, cache: 'buffered', ...given }
}
