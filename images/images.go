// Package images makes what a router boots from: initramfs, unified kernel
// image, squashfs, configuration file system and the disk that holds them. It
// also says what a good boot of such a disk looks like (Predict), by running
// the router's own boot.Measure over the disk that has not been booted.
//
// An image is a function of its Spec and of the versions of the build host's
// tools: two builds from the same Spec in different folders, by other users,
// at other times are byte-identical. The package never opens a device and
// never boots anything; images/vm does.
package images

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// boards holds one folder a board: what is on its partitions, which modules
// and command line its kernel gets, and the measurement policy.
//
//go:embed all:boards
var boards embed.FS

// Names of the files in an image's folder.
const (
	DiskFile      = "disk.img"       // what the router boots from
	KernelFile    = "vmlinuz"        // the kernel, for a start without firmware
	InitramfsFile = "initramfs.xz"   // the initramfs, for a start without firmware
	CmdlineFile   = "cmdline"        // the kernel command line, without a newline
	FirmwareFile  = "firmware.json"  // what Learn recorded of a golden boot
	ReferenceFile = "reference.json" // what Predict wrote
	BoardFile     = "board"          // the board's name
)

// SystemdBoot is where Debian's package systemd-boot-efi puts its programs.
const SystemdBoot = "/usr/lib/systemd/boot/efi"

// Spec says what goes into an image.
type Spec struct {
	Board     string            // folder of images/boards, for example qemu-amd64
	Kernel    string            // folder of an unpacked Debian kernel package: boot/vmlinuz-V and lib/modules/V
	Agent     string            // the router binary waxseald, built for the board
	OwnerCA   string            // PEM file with the owner's trust anchors; empty: a device without an owner
	Approvers string            // file with those who may authorise mirrors; empty: nobody may
	Mirrors   string            // file of authorised mirrors; empty: none
	Userland  map[string]string // commands of the rootfs: name in /bin → file; a dynamic one brings its libraries
}

// Build writes a bootable image into the folder out, which is made.
func Build(ctx context.Context, spec Spec, out string) error {
	b, err := openBoard(spec.Board)
	if err != nil {
		return err
	}
	if out, err = filepath.Abs(out); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, stale := range []string{FirmwareFile, ReferenceFile} { // of another disk
		if err := os.Remove(filepath.Join(out, stale)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	work, err := os.MkdirTemp(out, ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	steps := []struct {
		name string
		make func(build, context.Context) error
	}{
		{"initramfs", build.initramfs},
		{"UKI", build.uki},
		{"ESP", build.esp},
		{"rootfs", build.rootfs},
		{"configuration", build.conf},
		{"disk", build.disk},
		{"files for a direct start", build.direct},
	}
	bd := build{spec, b, work, out}
	for _, s := range steps {
		if err := s.make(bd, ctx); err != nil {
			return fmt.Errorf("image %s: %s: %w", spec.Board, s.name, err)
		}
	}
	return nil
}

// build is one run of Build.
type build struct {
	spec  Spec
	board fs.FS  // the board's folder
	work  string // intermediate files, removed at the end
	out   string
}

func (b build) path(name string) string { return filepath.Join(b.work, name) }

func openBoard(name string) (fs.FS, error) {
	if name == "" || strings.ContainsAny(name, "/\\.") {
		return nil, fmt.Errorf("board %q: not a name", name)
	}
	sub, err := fs.Sub(boards, "boards/"+name)
	if err != nil {
		return nil, err
	}
	if _, err := fs.Stat(sub, "modules"); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("board %q: no such folder in images/boards", name)
	}
	return sub, nil
}

// epoch is the time that every file of an image gets, in seconds since 1970.
const epoch = "1700000000"

// run starts a program of the build host with an environment in which its
// output does not depend on who runs it, where or when.
func run(ctx context.Context, dir string, argv ...string) error {
	_, err := output(ctx, dir, argv...)
	return err
}

func output(ctx context.Context, dir string, argv ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin",
		"LC_ALL=C", "TZ=UTC", "HOME=/nonexistent",
		"SOURCE_DATE_EPOCH=" + epoch, "E2FSPROGS_FAKE_TIME=" + epoch,
		"MTOOLS_SKIP_CHECK=1", "MTOOLSRC=/dev/null",
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%s is not installed: run scripts/setup", argv[0])
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
