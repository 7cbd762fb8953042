import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { Supervisor, type DiskHostSpec, type EngineSpec, type SupervisorEvent } from '../../../src/supervisor/index.js'
import type { RestartPace } from '../../../src/supervisor/index.js'

export type Behaviour = 'steady' | 'exits-at-once' | 'crashes' | 'ignores-sigterm' | 'hangs' | 'is-missing'

export interface Supervised {
  supervisor: Supervisor
  events: SupervisorEvent[]
  /** The first event from the given place on that is so, when it comes. */
  eventually: <T extends SupervisorEvent>(is: (event: SupervisorEvent) => event is T, from?: number) => Promise<T>
}

/** A supervisor whose processes, of either kind, are small scripts. */
export function aSupervisor(
  t: Test,
  behaviour: Behaviour,
  options: { restartPace?: RestartPace; stopLimitMs?: number } = {},
): Supervised {
  const program = fileURLToPath(new URL(`./children/${behaviour}.js`, import.meta.url))
  const supervisor = new Supervisor({
    programs: { engine: program, 'disk-host': program, portal: program },
    ...options,
  })
  const events: SupervisorEvent[] = []
  const waiting = new Set<() => void>()
  supervisor.onEvent((event) => {
    events.push(event)
    for (const look of waiting) look()
  })
  t.teardown(() => supervisor.stopAll(100))
  return {
    supervisor,
    events,
    eventually: (is, from = 0) =>
      new Promise((resolve) => {
        const look = (): void => {
          const found = events.slice(from).find(is)
          if (found === undefined) return
          waiting.delete(look)
          resolve(found)
        }
        waiting.add(look)
        look()
      }),
  }
}

export function anEngine(volume: string, attachment = 1): EngineSpec {
  return {
    kind: 'engine',
    volume,
    attachment,
    config: {
      volume,
      sizeBytes: 1 << 20,
      secret: '00'.repeat(32),
      record: { epoch: { attachment: 0, run: 0 }, generation: 0, members: [], snapshot: '' },
      replicas: [],
      nbd: { host: '127.0.0.1', port: 10810 },
      iscsi: {
        ...{ host: '127.0.0.1', port: 20810, target: `iqn.2026-11.io.ankole:${volume}`, serial: volume },
        physicalBlockBytes: 4096,
      },
      ioBackend: 'auto',
      lateMs: 1000,
      startWaitMs: 1000,
      storeRestored: false,
      clientsAnew: false,
      dataDirectory: '/tmp',
    },
  }
}

export function aDiskHost(disk: string, directory = '/nowhere'): DiskHostSpec {
  return { kind: 'disk-host', disk, config: { disk, directory, listen: [], ioBackend: 'auto' } }
}

type Of<Type extends SupervisorEvent['type']> = Extract<SupervisorEvent, { type: Type }>

export const started = (event: SupervisorEvent): event is Of<'started'> => event.type === 'started'
export const exited = (event: SupervisorEvent): event is Of<'exited'> => event.type === 'exited'
export const spawnFailed = (event: SupervisorEvent): event is Of<'spawn-failed'> => event.type === 'spawn-failed'

/** The configurations that children said they were started with. */
export function saidConfigs(events: SupervisorEvent[]): Record<string, unknown>[] {
  return events.filter(said('started')).map(({ event }) => ({ ...(event as { config?: object }).config }))
}

export function said(message: string): (event: SupervisorEvent) => event is Of<'event'> {
  return (event): event is Of<'event'> =>
    event.type === 'event' && 'message' in event.event && event.event.message === message
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
