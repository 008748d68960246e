import { writeGolden } from '../lib/golden';

writeGolden();
