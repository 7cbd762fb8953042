import t from 'tap'
import { place, type ClusterDisk, type ClusterNode } from '../../../src/manager/placement.js'

const GiB = 1024 ** 3

function aDisk(id: string, given: Partial<ClusterDisk> = {}): ClusterDisk {
  const sizes = { totalBytes: 100 * GiB, freeBytes: 100 * GiB, scheduledBytes: 0 }
  return { id, allowScheduling: true, ready: true, ...sizes, ...given }
}

function aNode(name: string, disks: ClusterDisk[], allowScheduling = true): ClusterNode {
  return { name, allowScheduling, disks }
}

const request = { sizeBytes: 10 * GiB, numberOfReplicas: 3 }

void t.test('replicas go to distinct nodes where there are enough', (t) => {
  const nodes = ['a', 'b', 'c', 'd'].map((name) => aNode(name, [aDisk('1'), aDisk('2')]))
  const placement = place(nodes, request)
  t.ok(placement.placed)
  if (placement.placed) t.equal(new Set(placement.replicas.map(({ node }) => node)).size, 3)
  t.end()
})

void t.test('two replicas never share a node because others are full', (t) => {
  const full = aDisk('1', { freeBytes: GiB })
  const nodes = [aNode('a', [aDisk('1'), aDisk('2')]), aNode('b', [full]), aNode('c', [aDisk('1')])]
  const placement = place(nodes, request)
  t.match(placement, { placed: false, reason: /a node of its own each, and 2 of them.*\(b\/1\)/ })
  t.end()
})

void t.test('on one node replicas go to distinct disks', (t) => {
  const placement = place([aNode('a', [aDisk('1'), aDisk('2'), aDisk('3')])], request)
  t.match(placement, { placed: true, replicas: [{ disk: '1' }, { disk: '2' }, { disk: '3' }] })
  t.end()
})

void t.test('with fewer nodes than replicas they are spread evenly', (t) => {
  const disks = ['1', '2', '3'].map((id) => aDisk(id))
  const placement = place([aNode('a', disks), aNode('b', disks)], { ...request, numberOfReplicas: 4 })
  t.ok(placement.placed)
  if (placement.placed) t.same(placement.replicas.map(({ node }) => node).sort(), ['a', 'a', 'b', 'b'])
  t.end()
})

void t.test('the emptiest disks are taken', (t) => {
  const disks = [40, 10, 30, 20].map((scheduled, index) => aDisk(String(index), { scheduledBytes: scheduled * GiB }))
  const placement = place([aNode('a', disks)], { ...request, numberOfReplicas: 2 })
  t.match(placement, { placed: true, replicas: [{ disk: '1' }, { disk: '3' }] })
  t.end()
})

void t.test('a disk is not promised more than twice', (t) => {
  const fits = [aNode('a', [aDisk('1', { scheduledBytes: 190 * GiB })])]
  t.ok(place(fits, { ...request, numberOfReplicas: 1 }).placed)
  const over = [aNode('a', [aDisk('1', { scheduledBytes: 191 * GiB })])]
  t.match(place(over, { ...request, numberOfReplicas: 1 }), { placed: false, reason: /200% of the disk/ })
  t.end()
})

void t.test('each obstacle is named, with examples', (t) => {
  const nodes = [
    aNode('a', [aDisk('1', { ready: false }), aDisk('2', { allowScheduling: false })]),
    aNode('b', [aDisk('1')], false),
    ...Array.from({ length: 9 }, (_, index) => aNode(`c${index}`, [aDisk('1', { ready: false })])),
  ]
  const placement = place(nodes, request)
  t.match(placement, { placed: false, reason: /0 of them can be placed on the 12 disks of 11 nodes/ })
  if (!placement.placed) {
    t.match(placement.reason, /the disk is not ready \(a\/1, c0\/1, c1\/1, c2\/1 and 6 more\)/)
    t.match(placement.reason, /the disk takes no new replicas \(a\/2\)/)
    t.match(placement.reason, /the node takes no new replicas \(b\/1\)/)
  }
  t.end()
})

void t.test('a thousand nodes are filled in seconds, evenly', (t) => {
  const nodes = Array.from({ length: 1000 }, (_, n) => aNode(`n${n}`, [aDisk('1'), aDisk('2')]))
  const disks = new Map(nodes.flatMap(({ name, disks }) => disks.map((disk) => [`${name}/${disk.id}`, disk])))
  const started = performance.now()
  for (let i = 0; i < 2000; ++i) {
    const placement = place(nodes, { sizeBytes: GiB, numberOfReplicas: 3 })
    if (!placement.placed) throw new Error(placement.reason)
    for (const { node, disk } of placement.replicas) disks.get(`${node}/${disk}`)!.scheduledBytes += GiB
  }
  t.comment(`${Math.round((performance.now() - started) / 2)} µs each`)
  t.same([...new Set([...disks.values()].map((disk) => disk.scheduledBytes / GiB))], [3])
  t.end()
})
