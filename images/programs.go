package images

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// userland lists the commands of the lab's rootfs that come from u-root, by
// their folder in it.
var userland = []string{"core/init", "core/gosh", "core/cat", "core/kill", "core/ls", "core/sleep", "exp/modprobe"}

// network lists those that the build host has, as Debian's routers have them.
var network = []string{"ip", "tc", "nft"}

// BuildPrograms compiles the agent and the userland's commands from the source
// tree top into the folder out, reproducibly, and returns where they are.
func BuildPrograms(ctx context.Context, top, out string) (agent string, commands map[string]string, err error) {
	out, err = filepath.Abs(out)
	if err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", nil, err
	}
	agent = filepath.Join(out, "waxseald")
	if err := compile(ctx, top, agent, "./cmd/waxseald"); err != nil {
		return "", nil, err
	}
	commands = map[string]string{}
	for _, from := range userland {
		name := path.Base(from)
		commands[name] = filepath.Join(out, name)
		err := compile(ctx, filepath.Join(top, "images/userland"), commands[name], "github.com/u-root/u-root/cmds/"+from)
		if err != nil {
			return "", nil, err
		}
	}
	for _, name := range network {
		if commands[name], err = HostProgram(name); err != nil {
			return "", nil, err
		}
	}
	return agent, commands, nil
}

// tags leaves gRPC's debug pages out: their template engine calls methods by
// name, for which the linker keeps every method of every type (google.golang.org/grpc,
// tag grpcnotrace).
const tags = "grpcnotrace"

// compile builds a static Go program whose bytes do not depend on where, when
// and by whom it is built.
func compile(ctx context.Context, dir, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags="+tags, "-ldflags=-s -w -buildid=", "-o", out, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=-mod=readonly", "GOEXPERIMENT=")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w: %s", pkg, err, strings.TrimSpace(string(msg)))
	}
	return nil
}

// KernelDir returns where scripts/setup keeps the unpacked kernel package of
// the lab: in $WAXSEAL_CACHE, or the user's cache folder.
func KernelDir() (string, error) {
	dir := os.Getenv("WAXSEAL_CACHE")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(cache, "waxseal")
	}
	kernel := filepath.Join(dir, "kernel")
	if _, err := os.Stat(kernel); err != nil {
		return "", fmt.Errorf("no kernel in %s: run scripts/setup", dir)
	}
	return kernel, nil
}
