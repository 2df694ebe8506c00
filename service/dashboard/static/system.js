// The system page keeps itself fresh.

import { Live } from "./live.js";

new Live({}).start();
