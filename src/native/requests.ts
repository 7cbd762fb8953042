// Requests to a process of the data path as promises. The replies come back among the events; whoever reads those hands
// each reply to `settle`.

import type { DiskHostRequests, EngineRequests, PortalRequests, Reply } from './messages.js'

type Table = { [Op in string]: { parameters: object; result: unknown } }

/** `code` is the addon's own, or `gone` (no process to ask) or `timeout` (it did not answer in time). */
export class RequestError extends Error {
  override name = 'RequestError'
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message)
  }
}

interface Pending {
  op: string
  resolve(result: unknown): void
  reject(error: RequestError): void
  timer: NodeJS.Timeout
}

export class Requests<T extends { [Op in keyof T]: Table[string] }> {
  #next = 1 // 0 is the child's own: see src/supervisor/child.ts.
  readonly #pending = new Map<number, Pending>()

  /** `post` says whether there was a process to post to. */
  constructor(private readonly post: (document: object) => boolean) {}

  send<Op extends keyof T & string>(
    op: Op,
    parameters: T[Op]['parameters'],
    limitMs: number,
  ): Promise<T[Op]['result']> {
    const request = this.#next++
    return new Promise<T[Op]['result']>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(request)
        reject(new RequestError('timeout', `no answer to ${op} within ${limitMs} ms`))
      }, limitMs)
      this.#pending.set(request, { op, resolve, reject, timer })
      if (!this.post({ request, op, ...parameters })) {
        this.#take(request)?.reject(new RequestError('gone', `no process to ask for ${op}`))
      }
    })
  }

  /** A reply to nothing is one that came after its time limit, and is dropped. */
  settle(reply: Reply): void {
    const pending = this.#take(reply.reply)
    if (pending === undefined) return
    if ('error' in reply) pending.reject(new RequestError(reply.error.code, reply.error.message))
    else pending.resolve(reply.result)
  }

  /** The process is gone: nothing that was asked of it will be answered. */
  abandon(message: string): void {
    for (const request of [...this.#pending.keys()]) {
      this.#take(request)?.reject(new RequestError('gone', message))
    }
  }

  #take(request: number): Pending | undefined {
    const pending = this.#pending.get(request)
    if (pending === undefined) return undefined
    this.#pending.delete(request)
    clearTimeout(pending.timer)
    return pending
  }
}

export type EngineRequester = Requests<EngineRequests>
export type DiskHostRequester = Requests<DiskHostRequests>
export type PortalRequester = Requests<PortalRequests>
