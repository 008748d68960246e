import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { IgnoreMode } from 'aws-cdk-lib';
import { Platform } from 'aws-cdk-lib/aws-ecr-assets';
import * as ecs from 'aws-cdk-lib/aws-ecs';
import { Settings } from './settings';

/** The checkout that the images are built from. This file runs from build/lib. */
export const checkout = path.resolve(__dirname, '..', '..', '..', '..');

/** What the binary in the images says it is: the checkout's tag or commit. */
function version(): string {
  try {
    return execFileSync('git', ['-C', checkout, 'describe', '--tags', '--always', '--dirty'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return 'unknown'; // no checkout of git
  }
}

/** An image of that URI, or the one that the Dockerfile makes of this checkout at deployment. */
export function image(setting: 'image' | 'browserImage', dockerfile: string, settings: Settings): ecs.ContainerImage {
  const uri = settings[setting];
  if (uri !== undefined) {
    return ecs.ContainerImage.fromRegistry(uri);
  }
  if (!fs.existsSync(path.join(checkout, dockerfile))) {
    throw new Error(`${setting} is not set, and the checkout has no ${dockerfile} to build it from: give -c ${setting}=REGISTRY/NAME:TAG`);
  }
  return ecs.ContainerImage.fromAsset(checkout, {
    file: dockerfile,
    buildArgs: { VERSION: version() },
    platform: settings.architecture === 'ARM64' ? Platform.LINUX_ARM64 : Platform.LINUX_AMD64,
    ignoreMode: IgnoreMode.DOCKER,
    exclude: ['.git', '**/node_modules', 'deploy', 'e2e', 'docs', 'bin', 'dist'],
  });
}

export function runtimePlatform(settings: Settings): ecs.RuntimePlatform {
  return {
    operatingSystemFamily: ecs.OperatingSystemFamily.LINUX,
    cpuArchitecture: settings.architecture === 'ARM64' ? ecs.CpuArchitecture.ARM64 : ecs.CpuArchitecture.X86_64,
  };
}
