// The portal process. Started by the supervisor, which see.

import { runChild } from '../supervisor/child.js'

runChild('portal')
