package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"waxseal/boot/handoff"
)

// initialise is process 1. It returns only if the router cannot be handed
// over, which the kernel answers with a panic and a restart.
func initialise(log *slog.Logger) {
	mountKernel(log)
	loadModules(log)
	res := measureBoot(log)
	if err := res.save(); err != nil {
		log.Warn("result of the boot is not kept", "cause", err)
	}
	// A mount left behind would keep the router from writing to its own ESP.
	if err := unix.Unmount(espDir, unix.MNT_DETACH); err != nil {
		log.Warn("ESP", "cause", err)
	}
	if err := giveConf(); err != nil {
		log.Warn("router boots without its configuration", "cause", err)
	}
	resident, err := handoff.StartResident(newRoot, "agent")
	if err != nil {
		log.Error("router boots without its agent", "cause", err)
	}
	log.Info("hand-over", "init", rootInit, "unattested", res.Unattested)
	log.Error("hand-over failed", "cause", resident.SwitchRoot(newRoot, rootInit))
}

type mountPoint struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func (m mountPoint) mount() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
	}
	return nil
}

// mountKernel mounts the kernel's own file systems.
func mountKernel(log *slog.Logger) {
	const none = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV
	for _, m := range []mountPoint{
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, ""},
		{"proc", "/proc", "proc", none, ""},
		{"sysfs", "/sys", "sysfs", none, ""},
		{"securityfs", "/sys/kernel/security", "securityfs", none, ""},
		{"bpf", "/sys/fs/bpf", "bpf", none, "mode=0700"},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	} {
		if err := m.mount(); err != nil && !errors.Is(err, unix.EBUSY) {
			log.Warn("kernel file system", "cause", err)
		}
	}
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		log.Warn("run directory", "cause", err)
	}
}

// loadModules inserts the initramfs's modules in the order of their names.
func loadModules(log *slog.Logger) {
	files, _ := filepath.Glob("/modules/*.ko")
	slices.Sort(files)
	for _, file := range files {
		if err := insertModule(file); err != nil && !errors.Is(err, unix.EEXIST) {
			log.Warn("kernel module", "file", file, "cause", err)
		}
	}
}

func insertModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// giveConf moves the configuration partition into the new root, writable from
// now on: it was measured while it was read-only, by this process alone.
func giveConf() error {
	err := unix.Mount("", confDir, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, "")
	if err != nil {
		err = fmt.Errorf("configuration stays read-only: %w", err)
	}
	if merr := unix.Mount(confDir, newRoot+"/conf", "", unix.MS_MOVE, ""); merr != nil {
		err = errors.Join(err, fmt.Errorf("configuration: %w", merr))
	}
	return err
}

// waitFor calls try until it succeeds or limit is over.
func waitFor(ctx context.Context, limit time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}
