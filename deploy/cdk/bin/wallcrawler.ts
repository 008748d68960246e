import { makeApp } from '../lib/stack';

makeApp().app.synth();
