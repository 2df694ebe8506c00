// The list of studies keeps itself fresh while something runs.

import { Live } from "./live.js";

if (document.body.dataset.active !== undefined) new Live({}).start();
