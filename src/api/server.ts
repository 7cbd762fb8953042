import swagger from '@fastify/swagger'
import {
  fastify,
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyTypeProvider,
  type RawReplyDefaultExpression,
  type RawRequestDefaultExpression,
  type RawServerDefault,
} from 'fastify'
import type { Static, TSchema } from 'typebox'
import type { Manager } from '../manager/index.js'
import { AnkoleError, errorTable, listenError, messageOf, type ErrorCode } from './errors.js'
import { addRoutes } from './routes.js'
import { HealthView, type ErrorView } from './schemas.js'
import type { Faces } from './views.js'

interface TypeBoxTypeProvider extends FastifyTypeProvider {
  validator: this['schema'] extends TSchema ? Static<this['schema']> : unknown
  serializer: this['schema'] extends TSchema ? Static<this['schema']> : unknown
}

export type Server = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>

export interface ServerOptions {
  /** Null until it has started. */
  manager: () => Manager | null
  /** Whether it serves: what /healthz says. */
  ready: () => boolean
  node: string
  faces: Faces
  version: string
  metrics: { contentType: string; text: () => Promise<string> }
  log: FastifyBaseLogger
}

const bodyBytesMax = 64 * 1024

export async function buildServer(options: ServerOptions): Promise<Server> {
  const { log, version, metrics } = options
  const server: Server = fastify({
    loggerInstance: log,
    bodyLimit: bodyBytesMax,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 300 },
    frameworkErrors: (error, _, reply) => {
      void (reply as unknown as FastifyReply).code(400).send(errorView('invalid-argument', `${messageOf(error)}.`))
    },
    ajv: { customOptions: { removeAdditional: false, coerceTypes: 'array' } },
  })
  allowEmptyBodies(server)
  refuseOtherSites(server)
  answerErrors(server, log)
  await server.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Ankole', version, description: 'Distributed block storage: volumes, nodes, processes.' },
      tags: [{ name: 'volumes' }, { name: 'snapshots' }, { name: 'nodes' }, { name: 'health' }],
    },
  })
  const health = { summary: 'Whether it serves', tags: ['health'], response: { 200: HealthView, 503: HealthView } }
  // Routes are added in a plugin of their own, as the document is made of those that come after it.
  await server.register((scope, _, done) => {
    const routes = scope.withTypeProvider<TypeBoxTypeProvider>()
    routes.get('/healthz', { schema: health }, (_, reply) => {
      const ready = options.ready()
      void reply.code(ready ? 200 : 503)
      return { status: ready ? ('ok' as const) : ('starting' as const) }
    })
    routes.get('/metrics', { schema: { hide: true } }, async (_, reply) => {
      return reply.header('content-type', metrics.contentType).send(await metrics.text())
    })
    routes.get('/v1/openapi.json', { schema: { hide: true } }, () => server.swagger())
    addRoutes(routes, { manager: () => current(options), node: options.node, faces: options.faces })
    done()
  })
  return server
}

/** Listens; throws address-in-use and the like with the address in the message. */
export async function listen(server: Server, { host, port }: { host: string; port: number }): Promise<string> {
  try {
    return await server.listen({ host, port })
  } catch (error) {
    throw listenError('The API', `${host}:${port}`, error) ?? error
  }
}

function current({ manager }: ServerOptions): Manager {
  const found = manager()
  if (found) return found
  throw new AnkoleError('not-ready', 'Ankole is starting.')
}

/** A POST without a body asks for the defaults. */
function allowEmptyBodies(server: Server): void {
  server.removeContentTypeParser('application/json')
  server.addContentTypeParser('application/json', { parseAs: 'string' }, (_, text, done) => {
    try {
      done(null, text === '' ? {} : (JSON.parse(text as string) as unknown))
    } catch (error) {
      done(new AnkoleError('invalid-argument', `The body of the request is not JSON: ${messageOf(error)}.`))
    }
  })
  server.addHook('preValidation', (request, _, done) => {
    request.body ??= request.method === 'POST' ? {} : request.body
    done()
  })
}

/** The API has no login of its own yet: at least no web page of another site may use the browser of its owner. */
function refuseOtherSites(server: Server): void {
  server.addHook('onRequest', (request, _, done) => {
    const { origin, host } = request.headers
    if (origin === undefined || origin === `http://${host ?? ''}` || origin === `https://${host ?? ''}`) done()
    else done(new AnkoleError('forbidden', `A page of ${origin} may not use this API.`))
  })
}

function answerErrors(server: Server, log: FastifyBaseLogger): void {
  server.setErrorHandler((error: FastifyError | AnkoleError | Error, request, reply) => {
    const { code, message } = asAnkoleError(error)
    if (code === 'internal') log.error({ err: error, url: request.url }, 'request failed')
    return reply.code(errorTable[code].http).send(errorView(code, message))
  })
  server.setNotFoundHandler((request, reply) => {
    const message = `There is no ${request.method} ${request.url.slice(0, 200)}; /v1/openapi.json lists what there is.`
    return reply.code(404).send(errorView('not-found', message))
  })
}

function asAnkoleError(error: Error): AnkoleError {
  if (error instanceof AnkoleError) return error
  const status = 'statusCode' in error && typeof error.statusCode === 'number' ? error.statusCode : 500
  if (status < 400 || status >= 500) return new AnkoleError('internal', messageOf(error))
  return new AnkoleError('invalid-argument', `${messageOf(error)}.`)
}

export function errorView(code: ErrorCode, message: string): ErrorView {
  return { error: { code, message, action: errorTable[code].action } }
}
