import t from 'tap'
import { nodePlan, type PlanOptions } from '../../../src/manager/node-plan.js'
import type { Node, Volume } from '../../../src/store/index.js'
import { aVolume } from '../store/builders.js'

const options: PlanOptions = {
  ...{ replication: 'unix', nbdHost: '127.0.0.1', lateMs: 1000 },
  socketPath: (disk) => `/run/${disk}.sock`,
  iscsi: { listen: { host: '127.0.0.1', port: 3260 }, host: '127.0.0.1' },
}

const identity = { uid: 'a-uid', resourceVersion: '1', creationTimestamp: '' }

const node: Node = {
  metadata: { name: 'node-1', ...identity },
  spec: { address: '127.0.0.1', allowScheduling: true, disks: [] },
}

function aVolumeOn(name: string, wanted: string | null, held: string | null = wanted): Volume {
  const draft = aVolume(name)
  const volume: Volume = { ...draft, metadata: { name, ...identity } }
  volume.spec.nodeID = wanted
  volume.membership.node = held
  return volume
}

void t.test(
  'an engine listens beside the portal, as a target with the name and the serial number of its volume',
  (t) => {
    const volume = aVolumeOn('demo', 'node-1')
    volume.chap = { user: 'me', secret: 'a secret of mine' }
    volume.spec.physicalBlockBytes = 512
    const { engines } = nodePlan(node, [volume, aVolumeOn('other', 'node-1')], options)
    t.same(engines[0]?.iscsi, {
      ...{ host: '127.0.0.1', port: 20810, target: 'iqn.2026-11.io.ankole:demo', serial: 'a-uid' },
      physicalBlockBytes: 512,
      chap: { user: 'me', secret: 'a secret of mine' },
    })
    t.notOk('chap' in (engines[1]?.iscsi ?? {}))
    t.equal(engines[1]?.iscsi.physicalBlockBytes, 4096, 'of a volume that was stored before there was a choice')
    t.end()
  },
)

void t.test('the portal knows every volume, and sends on to those that are attached', (t) => {
  const deleted = aVolumeOn('deleted', null, 'node-1')
  deleted.metadata.deletionTimestamp = '2026-01-01T00:00:00.000Z'
  const volumes = [
    aVolumeOn('attached', 'node-1'),
    aVolumeOn('attaching', 'node-1', null),
    aVolumeOn('detached', null),
    aVolumeOn('detaching', null, 'node-1'),
    deleted,
  ]
  const { portal } = nodePlan(node, volumes, options)
  t.same(portal, {
    listen: { host: '127.0.0.1', port: 3260 },
    advertisedHost: '127.0.0.1',
    targets: [
      { iqn: 'iqn.2026-11.io.ankole:attached', address: '127.0.0.1:20810' },
      { iqn: 'iqn.2026-11.io.ankole:attaching', address: '' },
      { iqn: 'iqn.2026-11.io.ankole:detached', address: '' },
      { iqn: 'iqn.2026-11.io.ankole:detaching', address: '' },
    ],
  })
  t.end()
})

void t.test('where everything listens on every address, initiators are sent to one that they can reach', (t) => {
  const iscsi = { listen: { host: '::', port: 3260 }, host: '2001:db8::7' }
  const { portal, engines } = nodePlan(node, [aVolumeOn('demo', 'node-1')], { ...options, iscsi })
  t.equal(portal?.listen.host, '::')
  t.equal(portal?.advertisedHost, '2001:db8::7')
  t.equal(engines[0]?.iscsi.host, '::')
  t.equal(portal?.targets[0]?.address, '[2001:db8::7]:20810')
  t.end()
})

void t.test('a volume without a port for iSCSI is neither served nor sent on to', (t) => {
  const volume = aVolumeOn('demo', 'node-1')
  delete volume.iscsiPort
  const { portal, engines } = nodePlan(node, [volume], options)
  t.same(engines, [])
  t.equal(portal?.targets[0]?.address, '')
  t.end()
})
