// The life of one supervised process, as one table.
//
//            start              exited                due
//   absent ─────────▶ running ─────────▶ backing-off ─────▶ running
//     ▲                 │  │ restart         │ stop
//     │ exited     stop │  └──────┐          └────▶ absent
//     │                 ▼         ▼
//     └───────────── stopping ⇄ replacing ──▶ running (when the old one is gone)
//
// Only `fork` makes a process, and it is never an action of a state that has one: no two processes of one key are alive
// at once. `running` and `backing-off` are wanted, `stopping` is not: what was told to stop is not started again.

export type ProcessState = 'absent' | 'running' | 'backing-off' | 'stopping' | 'replacing'

export type ProcessInput =
  /** It is wanted; one that runs does. */
  | 'start'
  /** It is wanted anew: one that runs must go first. */
  | 'restart'
  | 'stop'
  /** The process is gone, and all it said was heard. */
  | 'exited'
  /** The back-off is over. */
  | 'due'
  /** It was told to stop, and did not in time. */
  | 'overdue'

export type ProcessAction =
  | 'fork'
  /** SIGTERM, and set the limit after which it is overdue. */
  | 'terminate'
  | 'kill'
  | 'arm-back-off'
  | 'cancel-back-off'

export interface Transition {
  state: ProcessState
  actions: readonly ProcessAction[]
}

const to = (state: ProcessState, ...actions: ProcessAction[]): Transition => ({ state, actions })

const transitions: Record<ProcessState, Record<ProcessInput, Transition>> = {
  absent: {
    start: to('running', 'fork'),
    restart: to('running', 'fork'),
    stop: to('absent'),
    exited: to('absent'),
    due: to('absent'),
    overdue: to('absent'),
  },
  running: {
    start: to('running'),
    restart: to('replacing', 'terminate'),
    stop: to('stopping', 'terminate'),
    exited: to('backing-off', 'arm-back-off'),
    due: to('running'),
    overdue: to('running'),
  },
  'backing-off': {
    start: to('backing-off'),
    restart: to('running', 'cancel-back-off', 'fork'),
    stop: to('absent', 'cancel-back-off'),
    exited: to('backing-off'),
    due: to('running', 'fork'),
    overdue: to('backing-off'),
  },
  stopping: {
    start: to('replacing'),
    restart: to('replacing'),
    stop: to('stopping'),
    exited: to('absent'),
    due: to('stopping'),
    overdue: to('stopping', 'kill'),
  },
  replacing: {
    start: to('replacing'),
    restart: to('replacing'),
    stop: to('stopping'),
    exited: to('running', 'fork'),
    due: to('replacing'),
    overdue: to('replacing', 'kill'),
  },
}

export function nextProcessState(state: ProcessState, input: ProcessInput): Transition {
  return transitions[state][input]
}

export interface RestartPace {
  /** The first restart comes at once, the next after this, then twice as long each. */
  baseMs: number
  maxMs: number
  /** One that lived this long starts over. */
  resetAfterMs: number
}

export const defaultRestartPace: RestartPace = { baseMs: 100, maxMs: 5_000, resetAfterMs: 30_000 }

/** `failures`: how often it ended in a row, this time included. */
export function restartDelayMs(failures: number, pace: RestartPace): number {
  if (failures <= 1) return 0
  return Math.min(pace.maxMs, pace.baseMs * 2 ** (failures - 2))
}
