import t from 'tap'
import {
  defaultRestartPace,
  nextProcessState,
  restartDelayMs,
  type ProcessInput,
  type ProcessState,
} from '../../../src/supervisor/index.js'

const states: ProcessState[] = ['absent', 'running', 'backing-off', 'stopping', 'replacing']
const inputs: ProcessInput[] = ['start', 'restart', 'stop', 'exited', 'due', 'overdue']

/** Whether a process may be alive in it. */
const hasProcess: Record<ProcessState, boolean> = {
  absent: false,
  running: true,
  'backing-off': false,
  stopping: true,
  replacing: true,
}

t.test('in every state, for every input', (t) => {
  for (const state of states) {
    for (const input of inputs) {
      const { state: next, actions } = nextProcessState(state, input)
      const what = `${state} + ${input} = ${next} ${actions.join(' ')}`
      const forks = actions.includes('fork')
      if (forks) t.ok(!hasProcess[state] || input === 'exited', `no second process: ${what}`)
      if (input !== 'exited' && hasProcess[state]) t.ok(hasProcess[next], `no process is forgotten: ${what}`)
      if (!hasProcess[state] || input === 'exited') t.equal(hasProcess[next], forks, `only fork makes one: ${what}`)
      if (input === 'stop') t.match(next, /^(absent|stopping)$/, `what was told to stop is not wanted: ${what}`)
      if (input === 'start' || input === 'restart')
        t.match(next, /^(running|backing-off|replacing)$/, `is wanted: ${what}`)
      if ((state === 'stopping' || state === 'absent') && input !== 'start' && input !== 'restart')
        t.notOk(forks, `stays stopped: ${what}`)
      if (state === 'backing-off' && next !== 'backing-off' && input !== 'due') {
        t.ok(actions.includes('cancel-back-off'), `no timer is left: ${what}`)
      }
    }
  }
  t.end()
})

t.test('restarts at once, then after 100 ms, then ever later, up to 5 s', (t) => {
  const delays = [1, 2, 3, 4, 5, 6, 7, 8, 100].map((failures) => restartDelayMs(failures, defaultRestartPace))
  t.strictSame(delays, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000])
  t.end()
})
