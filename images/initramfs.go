package images

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// initramfs writes the cpio archive with the agent as /init and the board's
// kernel modules, compressed as the kernel can read it.
func (b build) initramfs(ctx context.Context) error {
	agent, err := os.ReadFile(b.spec.Agent)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	records := []cpio.Record{cpio.StaticFile("init", string(agent), 0o755)}
	for _, dir := range []string{"dev", "proc", "sys", "run", "mnt", "modules"} {
		records = append(records, cpio.Directory(dir, 0o755))
	}
	modules, err := b.modules(ctx)
	if err != nil {
		return fmt.Errorf("modules: %w", err)
	}
	archive, err := pack(append(records, modules...))
	if err != nil {
		return err
	}
	raw := b.path("initramfs")
	if err := os.WriteFile(raw, archive, 0o644); err != nil {
		return err
	}
	// The kernel's decoder knows no CRC64, and threads would change the blocks.
	return run(ctx, b.work, "xz", "--check=crc32", "--threads=1", "-9", raw)
}

// pack writes records as a newc archive that depends on nothing but them.
func pack(records []cpio.Record) ([]byte, error) {
	var buf bytes.Buffer
	w := cpio.Newc.Writer(&buf)
	for i, r := range records {
		r.Ino, r.MTime, r.UID, r.GID = uint64(i+1), 0, 0, 0
		if err := w.WriteRecord(r); err != nil {
			return nil, fmt.Errorf("cpio record %s: %w", r.Name, err)
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// modules returns the kernel modules of the initramfs, named so that their
// order is the order in which they can be inserted.
func (b build) modules(ctx context.Context) ([]cpio.Record, error) {
	files, err := b.moduleFiles(ctx, "modules")
	if err != nil {
		return nil, err
	}
	var records []cpio.Record
	for i, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		path := fmt.Sprintf("modules/%03d-%s", i+1, filepath.Base(file))
		records = append(records, cpio.StaticFile(path, string(data), 0o644))
	}
	return records, nil
}

func (b build) kernelVersion() (string, error) {
	found, err := filepath.Glob(filepath.Join(b.spec.Kernel, "boot/vmlinuz-*"))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%d kernels in %s/boot: need one; run scripts/setup", len(found), b.spec.Kernel)
	}
	return strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-"), nil
}

func (b build) kernel() (string, error) {
	version, err := b.kernelVersion()
	return filepath.Join(b.spec.Kernel, "boot/vmlinuz-"+version), err
}
