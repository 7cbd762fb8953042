// A replica that comes and goes is held off for longer each time, so that it does not cost the volume a second each time it comes.

import t from 'tap'
import { aCluster, lacks, signal, sleep } from './cluster.js'
import { longRun } from './options.js'

/** By how often it left within a minute of the time before. */
const heldOffSeconds = longRun ? [0, 1, 2, 4, 8] : [0, 1, 2]

t.test('a disk host hangs and wakes, again and again', { skip: lacks }, async (t) => {
  const cluster = await aCluster(t)
  const load = await cluster.load()
  const site = cluster.sites[1]!
  const pid = cluster.diskHostPid(site)
  for (const seconds of heldOffSeconds) {
    signal(pid, 'SIGSTOP')
    await cluster.until('it has left', () => cluster.replicaReport(site)?.state === 'left')
    const leftAt = performance.now()
    const { fault, reason } = cluster.replicaReport(site)!
    t.equal(fault, 'no-answer')
    if (seconds === 0) t.notMatch(reason, /held off/, 'the first time it is taken back as soon as it can be')
    else t.match(reason, new RegExp(`comes and goes, and is held off for ${seconds} s$`))
    signal(pid, 'SIGCONT')
    let seenHeldOff = false
    while (cluster.replicaReport(site)?.state !== 'member') {
      const { replicas } = await cluster.engineCounters()
      seenHeldOff ||= replicas.find(({ id }) => id === site.replica)?.resync?.state === 'held-off'
      await sleep(20)
    }
    // That it left is seen a moment later, and the engine's clock runs from before.
    const tookMs = performance.now() - leftAt
    t.ok(tookMs >= seconds * 1000 - 500, `it is back after ${Math.round(tookMs)} ms`)
    if (seconds > 0) t.ok(seenHeldOff, 'the counters say that it is held off')
    await cluster.whole()
    await load.more(50)
  }
  const { faults } = await cluster.engineCounters()
  t.equal(faults['no-answer'], heldOffSeconds.length, 'each time is counted')
  await cluster.endsWell(load, 'a replica comes and goes', { stallMs: 1500 })
})
