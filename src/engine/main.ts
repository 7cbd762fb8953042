// The engine process. Started by the supervisor, which see.

import { runChild } from '../supervisor/child.js'

runChild('engine')
