// The disk-host process. Started by the supervisor, which see.

import { runChild } from '../supervisor/child.js'

runChild('disk-host')
