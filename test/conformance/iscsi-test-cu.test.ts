// Every test of libiscsi's suite, against volumes of three replicas.

import t from 'tap'
import { anAnkole } from './ankole.js'
import { listedAsApart, listedAsSkipped, runTest, runTestTwice, testNames, type Outcome } from './libiscsi-suite.js'
import { lacks } from './tools.js'

/** Of version 1.19: fewer are a list that was not understood. */
const testsMin = 230

/** One after another, as they reserve and reset what they share: half a minute. More is for a machine with other work. */
const wholeLimitMs = 180_000

t.test('iscsi-test-cu', { skip: lacks('iscsi-test-cu') }, async (t) => {
  const ankole = await anAnkole(t)
  const volume = await ankole.createVolume('conformance', '256MiB')
  const small = await ankole.createVolume('small-blocks', '256MiB', ['--physical-block-size', '512'])
  const [skipped, apart] = [listedAsSkipped(), listedAsApart()]
  const names = await testNames()
  const outcomes: Outcome[] = []

  const runAsListed = (name: string): Promise<Outcome> => {
    const way = apart.get(name)
    switch (way?.kind) {
      case undefined:
        return runTest(name, volume.iscsiUrl)
      case 'second-run':
        return runTestTwice(name, volume.iscsiUrl, way.firstFailsAt)
      case 'small-blocks':
        return runTest(name, small.iscsiUrl)
    }
  }

  await t.test('no test fails, and none is skipped, but those that are listed', async (t) => {
    t.ok(names.length >= testsMin, `${names.length} tests`)
    const deadline = performance.now() + wholeLimitMs
    for (const name of names) {
      if (performance.now() > deadline) throw new Error(`${outcomes.length} of ${names.length} tests done in time`)
      const outcome = await runAsListed(name)
      outcomes.push(outcome)
      const title = outcome.said === '' ? name : `${name}: ${firstLine(outcome.said)}`
      if (!t.equal(outcome.result, skipped.has(name) ? 'skipped' : 'passed', title)) t.comment(outcome.said)
    }
    const count = (result: Outcome['result']): number => outcomes.filter((outcome) => outcome.result === result).length
    t.comment(`${count('passed')} passed, ${count('skipped')} skipped, ${count('failed')} failed`)
  })

  await t.test('the lists name nothing that is not there', (t) => {
    t.strictSame(
      [...skipped.keys(), ...apart.keys()].filter((name) => !names.includes(name)),
      [],
    )
    t.end()
  })

  await t.test('the replicas are members still, and equal', async (t) => {
    await volume.endsEqual(t)
    await small.endsEqual(t)
  })
})

function firstLine(text: string): string {
  return text.split('\n', 1)[0]!
}
