// The REST client of the commands.
import { AnkoleError, errorTable, isErrorCode, messageOf, type ErrorCode } from '../api/errors.js'

export const defaultUrl = 'http://127.0.0.1:9500'

/** No answer from the other side: not an error of the API. */
export class UnreachableError extends Error {
  readonly action =
    'Start Ankole with `ankole up`, or name its address with --url or ANKOLE_URL (`ankole up` prints it).'
}

export class Client {
  readonly url: string

  constructor(url: string) {
    this.url = url.replace(/\/+$/, '')
    if (!/^https?:\/\/[^/]/.test(this.url) || !URL.canParse(this.url)) {
      throw new AnkoleError(
        'invalid-argument',
        `${JSON.stringify(url)} is not the URL of an API, such as ${defaultUrl}.`,
      )
    }
  }

  /** The answer is as src/api/schemas.ts says: both ends are of one release. */
  async get<T>(path: string): Promise<T> {
    return (await this.#send('GET', path)) as T
  }

  async post<T>(path: string, body: object): Promise<T> {
    return (await this.#send('POST', path, body)) as T
  }

  async patch<T>(path: string, body: object): Promise<T> {
    return (await this.#send('PATCH', path, body)) as T
  }

  async delete<T>(path: string): Promise<T> {
    return (await this.#send('DELETE', path)) as T
  }

  async #send(method: string, path: string, body?: object): Promise<unknown> {
    const response = await this.#fetch(path, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    })
    const text = await response.text()
    const document = parse(text)
    if (response.ok && document !== undefined) return document
    throw (
      errorOf(document) ?? new UnreachableError(`What answers at ${this.url} is not Ankole: HTTP ${response.status}.`)
    )
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    try {
      return await fetch(`${this.url}${path}`, init)
    } catch (error) {
      const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
      throw new UnreachableError(`Ankole cannot be reached at ${this.url}: ${reasonOf(cause)}.`)
    }
  }
}

function reasonOf(cause: unknown): string {
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
  if (code === 'ECONNREFUSED') return 'the connection was refused'
  const message = messageOf(cause)
  return message === '' ? String(code) : message
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function errorOf(document: unknown): AnkoleError | undefined {
  const error = (document as { error?: { code?: unknown; message?: unknown } } | null | undefined)?.error
  if (typeof error?.code !== 'string' || typeof error.message !== 'string') return undefined
  return new AnkoleError(isErrorCode(error.code) ? error.code : 'internal', error.message)
}

export function actionOf(code: ErrorCode): string {
  return errorTable[code].action
}
