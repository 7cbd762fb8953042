export * from './messages.js'
export { Supervisor, type SupervisorOptions } from './supervisor.js'
export { defaultRestartPace, nextProcessState, restartDelayMs } from './process-state.js'
export type { ProcessAction, ProcessInput, ProcessState, RestartPace, Transition } from './process-state.js'
