// The peer: nbdkit's file plugin with its defaults, one plain file, no replication.
import { spawn } from 'node:child_process'
import { closeSync, ftruncateSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { connectable, freePort } from './ports.mjs'
import { versionOf } from '../programs.mjs'

export const nbdkit = {
  name: 'nbdkit',
  start: async ({ directory, sizeBytes }) => {
    const file = join(directory, 'nbdkit.img')
    const descriptor = openSync(file, 'w')
    ftruncateSync(descriptor, sizeBytes)
    closeSync(descriptor)
    const port = await freePort()
    const args = ['--foreground', '--ipaddr=127.0.0.1', `--port=${port}`, 'file', file]
    const child = spawn('nbdkit', args, { stdio: ['ignore', 'ignore', 'inherit'], detached: true })
    const ended = new Promise((resolve) => child.once('exit', resolve))
    await connectable(port, child)
    return {
      name: 'nbdkit',
      about: `${versionOf('nbdkit')}, file plugin, one plain file, default threads`,
      target: () => ['--ioengine=nbd', `--uri=nbd://127.0.0.1:${port}/`],
      files: () => [file],
      processes: () => [{ pid: child.pid, kind: 'nbdkit' }],
      stop: async () => {
        child.kill('SIGTERM') // Nothing, if it has ended.
        await ended
      },
    }
  },
}
