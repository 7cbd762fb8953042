// The API of a cluster without processes.
import type { Test } from 'tap'
import { pino } from 'pino'
import { buildServer, type Server } from '../../../src/api/index.js'
import { aCluster, aRequest, type Cluster } from '../manager/cluster.js'

export interface Answer {
  status: number
  body: Record<string, unknown>
}

export interface Api extends Cluster {
  call: (method: 'GET' | 'POST' | 'DELETE', url: string, body?: object) => Promise<Answer>
}

export async function aServerOf(t: Test, { manager }: Cluster): Promise<Server> {
  const server = await buildServer({
    ...{ manager: () => manager, ready: () => true, node: 'node-1', version: '1' },
    faces: { nbdHost: '127.0.0.1', portal: '127.0.0.1:3260' },
    metrics: { contentType: 'text/plain', text: () => Promise.resolve('') },
    log: pino({ level: 'silent' }),
  })
  t.teardown(() => server.close())
  return server
}

/** With the volume «demo», attached. */
export async function anApiOfDemo(t: Test): Promise<Api> {
  const cluster = await aCluster(t)
  const server = await aServerOf(t, cluster)
  await cluster.manager.createVolume(aRequest())
  await cluster.manager.attach('demo')
  await cluster.untilState('demo', 'attached')
  const call: Api['call'] = async (method, url, body) => {
    const response = await server.inject({ method, url, ...(body === undefined ? {} : { payload: body }) })
    return { status: response.statusCode, body: JSON.parse(response.payload) as Answer['body'] }
  }
  return { ...cluster, call }
}
