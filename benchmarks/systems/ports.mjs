import { connect, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

const waitMs = 20_000

export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}

/** Resolves when somebody listens; rejects if the process that is to listen ends. */
export async function connectable(port, child) {
  const deadline = Date.now() + waitMs
  while (!(await canConnect(port))) {
    if (child.exitCode !== null || child.signalCode !== null || Date.now() > deadline) {
      throw new Error(`${child.spawnargs.join(' ')} does not listen on port ${port}`)
    }
    await sleep(50)
  }
}

function canConnect(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
