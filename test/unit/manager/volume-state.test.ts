// The state machine over everything that can be wanted and seen at once, against what must always hold.
import t from 'tap'
import { Compile } from 'typebox/compile'
import type { EngineReport } from '../../../src/agent/index.js'
import { assess, wantsEngine, wantsReplicasGone, type Observed } from '../../../src/manager/volume-state.js'
import { Volume } from '../../../src/store/index.js'
import { aVolume, replicaIds } from '../store/builders.js'

const engineStates = [
  'starting',
  'serving',
  'degraded',
  'waiting',
  'refused',
  'stopping',
  'stopped',
  undefined,
] as const
const replicaStates = [
  ...(['creating', 'ready', 'removed', 'failed', 'disk-starting', 'disk-failed', 'unknown'] as const),
]
const nodes = [null, 'node-1', 'node-2'] as const

interface Case {
  volume: Volume
  observed: Observed
}

function* allCases(): Generator<Case> {
  for (const deletionTimestamp of [undefined, '2026-01-01T00:00:00.000Z'])
    for (const wanted of nodes)
      for (const given of nodes)
        for (const generation of [0, 3])
          for (const engine of engineStates)
            for (const engineEnded of [false, true])
              for (const first of replicaStates)
                for (const others of ['ready', 'removed', 'failed'] as const)
                  yield {
                    volume: theVolume({ deletionTimestamp, wanted, given, generation }),
                    observed: {
                      replicas: new Map(
                        replicaIds.map((id, index) => [
                          id,
                          { state: index === 0 ? first : others, directory: '/d', message: '' },
                        ]),
                      ),
                      engine: engine && theEngine(engine),
                      engineEnded,
                      waitedMs: 0,
                    },
                  }
}

function theVolume(given: {
  deletionTimestamp: string | undefined
  wanted: string | null
  given: string | null
  generation: number
}): Volume {
  const volume: Volume = {
    ...aVolume('demo'),
    metadata: { name: 'demo', uid: 'u', resourceVersion: '1', creationTimestamp: '' },
  }
  if (given.deletionTimestamp !== undefined) volume.metadata.deletionTimestamp = given.deletionTimestamp
  volume.spec.nodeID = given.wanted
  volume.membership.node = given.given
  volume.membership.attachment = 1
  volume.membership.record.generation = given.generation
  if (given.generation > 0) volume.membership.record.members = replicaIds.slice(0, 2)
  return volume
}

function theEngine(state: EngineReport['state']): EngineReport {
  const replicas = replicaIds.map((id) => ({ id, state: 'member', fault: '' as const, reason: '' }))
  const nbd = { host: '127.0.0.1', port: 10810 }
  const iscsi = { host: '127.0.0.1', port: 20810 }
  const what = { volume: 'demo', attachment: 1, run: 1, message: '', generation: 3, waitsFor: '' as const, nbd, iscsi }
  return { ...what, state, members: replicaIds, replicas }
}

void t.test('what must hold in every state', (t) => {
  const isVolume = Compile(Volume)
  const states = new Set<string>()
  let cases = 0
  for (const { volume, observed } of allCases()) {
    cases += 1
    const { status, step } = assess(volume, observed)
    const { metadata, spec, membership } = volume
    const isDeleting = metadata.deletionTimestamp !== undefined
    states.add(status.state)
    const must = (condition: boolean, what: string): void => {
      if (!condition) t.fail(what, { volume, observed, status, step })
    }
    must(isVolume.Check({ ...volume, status }), 'the status fits its schema')
    must(isDeleting === (status.state === 'deleting'), 'deleting is what is being deleted')
    must(!(wantsReplicasGone(volume) && membership.node !== null), 'no replica goes under an attachment')
    must(
      !['node-1', 'node-2'].some((node) => wantsEngine(volume, node)) ||
        (!isDeleting && membership.node === spec.nodeID),
      'an engine runs only where it is wanted and attached',
    )
    if (step === 'give-attachment') {
      must(!isDeleting && spec.nodeID !== null && membership.node === null, 'an attachment is given when none is held')
    }
    if (step === 'release-attachment') must(observed.engineEnded, 'an attachment is held until its engine has ended')
    if (step === 'forget') {
      const removed = [...observed.replicas.values()].every(({ state }) => state === 'removed')
      must(isDeleting && membership.node === null && removed, 'a volume is forgotten when all its replicas are gone')
    }
    if (status.state === 'attached') must(observed.engine !== undefined, 'attached is what an engine serves')
    if (status.robustness === 'healthy') must(observed.engine?.state === 'serving', 'healthy is what an engine says')
  }
  t.comment(`${cases} cases`)
  t.same(
    [...states].sort(),
    ['attached', 'attaching', 'creating', 'deleting', 'detached', 'detaching', 'faulted'],
    'every state is reached',
  )
  t.end()
})

void t.test('a volume that never ran is not started on fewer than all its replicas', (t) => {
  for (const { volume, observed } of allCases()) {
    if (volume.membership.record.generation > 0) continue
    const ready = [...observed.replicas.values()].every(({ state }) => state === 'ready')
    if (assess(volume, observed).step === 'give-attachment' && !ready) t.fail('started', { volume, observed })
  }
  t.pass('none was')
  t.end()
})

void t.test('a silent disk holds up a volume that ran before for a while only', (t) => {
  const volume = theVolume({ deletionTimestamp: undefined, wanted: 'node-1', given: null, generation: 3 })
  const replicas: Observed['replicas'] = new Map(
    replicaIds.map((id, index) => {
      return [id, { state: index === 0 ? 'disk-starting' : 'ready', directory: '', message: '' } as const]
    }),
  )
  const observed = { replicas, engine: undefined, engineEnded: false }
  t.match(assess(volume, { ...observed, waitedMs: 0 }), { step: 'none', status: { state: 'attaching' } })
  t.match(assess(volume, { ...observed, waitedMs: 60_000 }), { step: 'give-attachment' })
  t.end()
})
