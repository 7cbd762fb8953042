import t from 'tap'
import { durationText, progressLine, ProgressReport } from '../../../src/cli/progress.js'

const MiB = 1024 ** 2

/** With a clock that the test moves. */
function aReport({ json = false, isTerminal = false }) {
  const told: string[] = []
  const emitted: object[] = []
  let now = 0
  const report = new ProgressReport({
    ...{ what: 'Exporting volume data', json, isTerminal, nowMs: () => now },
    tell: (text) => void told.push(text),
    emit: (document) => void emitted.push(document),
  })
  /** A hundred steps in a second each. */
  const goOn = (seconds: number): void => {
    for (let step = 0; step < seconds * 100; ++step) {
      now += 10
      report.update({ doneBytes: step * MiB, totalBytes: 1000 * MiB })
    }
  }
  return { report, told, emitted, goOn }
}

t.test('on a terminal one line, at most five times a second, that goes at the end', (t) => {
  const { report, told, emitted, goOn } = aReport({ isTerminal: true })
  report.stage('Attaching volume data')
  goOn(2)
  t.equal(told.length, 11)
  t.ok(told.every((text) => text.startsWith('\r\u001b[K') && !text.includes('\n')))
  t.match(told.at(-1), /Exporting volume data: 18 % of 1000 MiB, 100 MiB\/s, 9 s to go$/)
  report.waits('no disk has space left')
  t.match(told.at(-1), 'waits: no disk has space left')
  report.end()
  t.equal(told.at(-1), '\r\u001b[K')
  t.same(emitted, [])
  t.end()
})

t.test('for programs a line each second, and nothing on the terminal', (t) => {
  const { report, told, emitted, goOn } = aReport({ json: true, isTerminal: true })
  report.stage('Attaching volume data')
  goOn(3)
  report.end()
  t.same(told, [])
  t.equal(emitted.length, 3)
  const last = { event: 'progress', doneBytes: 200 * MiB, totalBytes: 1000 * MiB, bytesPerSecond: 100 * MiB }
  t.same(emitted.at(-1), last)
  t.end()
})

t.test('nothing where nobody looks', (t) => {
  const { report, told, emitted, goOn } = aReport({})
  report.stage('Attaching volume data')
  goOn(3)
  report.waits('no disk has space left')
  report.end()
  t.same([...told, ...emitted], [])
  t.end()
})

t.test('times as people read them', (t) => {
  t.same([0.2, 99, 100, 3599, 6000, 11_100].map(durationText), [
    '1 s',
    '99 s',
    '2 min',
    '60 min',
    '1 h 40 min',
    '3 h 5 min',
  ])
  const begun = { doneBytes: 0, totalBytes: 0, bytesPerSecond: 0, waiting: '' }
  t.equal(progressLine('Importing', begun), 'Importing: 100 % of 0 B, 0 B/s')
  t.end()
})
