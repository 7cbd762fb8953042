// The peer: nbdkit's file plugin with its defaults, one plain file, no replication.
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { versionOf } from '../programs.mjs'
import { plainFile } from './plain-file.mjs'
import { connectable, freePort } from './ports.mjs'

export async function nbdkit({ directory, sizeBytes }) {
  const file = plainFile(join(directory, 'nbdkit.img'), sizeBytes)
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
}
