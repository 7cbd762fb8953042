// One machine of the test, in a network namespace of its own: the real agent and supervisor with the real processes under them. The plans, and the
// store, are the test's.

import {
  Agent,
  type MembershipRecord,
  type NodePlan,
  type NodeReport,
  type NodeCounters,
} from '../../src/agent/index.js'
import { Supervisor } from '../../src/supervisor/index.js'

export interface MachineConfig {
  node: string
  dataDirectory: string
  ioBackend: 'auto' | 'uring' | 'epoll'
}

export type ToMachine =
  | { type: 'start'; config: MachineConfig }
  | { type: 'plan'; plan: NodePlan }
  | { type: 'stored'; question: number; error?: { code?: string; message: string } }
  | { type: 'counters' }
  | { type: 'stop' }

export type FromMachine =
  | { type: 'report'; report: NodeReport }
  | { type: 'log'; level: string; message: string; fields: object }
  | { type: 'store'; question: number; attachment: number; record?: MembershipRecord }
  | { type: 'counters'; counters: NodeCounters }
  | { type: 'stopped'; ends: string[] }

let agent: Agent | undefined
const ends: string[] = []
const questions = new Map<number, (error?: { code?: string; message: string }) => void>()
let asked = 0

function send(message: FromMachine): void {
  if (process.connected) process.send!(message)
}

function askStore(attachment: number, record?: MembershipRecord): Promise<void> {
  return new Promise((resolve, reject) => {
    const question = ++asked
    questions.set(question, (error) => {
      questions.delete(question)
      if (error === undefined) resolve()
      else reject(Object.assign(new Error(error.message), error.code === undefined ? {} : { code: error.code }))
    })
    send({ type: 'store', question, attachment, ...(record === undefined ? {} : { record }) })
  })
}

function start({ node, dataDirectory, ioBackend }: MachineConfig): void {
  const supervisor = new Supervisor()
  supervisor.onEvent((event) => {
    if (event.type === 'exited') ends.push(`${event.process.key} ${event.reason}`)
  })
  const line = (level: string) => (fields: object, message: string) => {
    send({ type: 'log', level, fields, message })
  }
  agent = new Agent({
    ...{ node, supervisor, ioBackend, dataDirectory },
    recordStore: {
      store: (_volume, record) => askStore(record.epoch.attachment, record),
      probe: (_volume, attachment) => askStore(attachment),
    },
    log: { info: line('info'), warn: line('warn'), error: line('error') },
  })
  agent.onChange((report) => {
    send({ type: 'report', report })
  })
}

// A machine without its test is switched off. Its children notice by themselves.
process.on('disconnect', () => process.exit(1))
process.on('message', (message: ToMachine) => {
  switch (message.type) {
    case 'start':
      start(message.config)
      break
    case 'plan':
      agent!.apply(message.plan)
      break
    case 'stored':
      questions.get(message.question)?.(message.error)
      break
    case 'counters':
      void agent!.counters().then((counters) => {
        send({ type: 'counters', counters })
      })
      break
    case 'stop':
      void agent!.stop().then(() => {
        send({ type: 'stopped', ends })
        process.disconnect()
      })
      break
  }
})
