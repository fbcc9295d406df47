package images

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// partition is one partition of the lab's disk. Type and ID are fixed, so that
// two builds are identical; the names are those of the board table in hw/board.
type partition struct {
	Name, File, Type, ID string
	MiB                  int64
}

var layout = []partition{
	{"esp", "esp.img", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "57617873-6561-4c00-8000-000000000001", 64},
	{"root", "root.img", "0fc63daf-8483-4772-8e79-3d69d8477de4", "57617873-6561-4c00-8000-000000000002", 32},
	{"conf", "conf.img", "0fc63daf-8483-4772-8e79-3d69d8477de4", "57617873-6561-4c00-8000-000000000003", 16},
}

const (
	diskID   = "57617873-6561-4c00-8000-000000000000"
	espID    = "57415853" // FAT volume id
	confID   = "57617873-6561-4c00-8000-0000000000c0"
	confHash = "57617873-6561-4c00-8000-0000000000c1"
	mib      = 1 << 20
)

// esp writes the EFI system partition: systemd-boot, its configuration, the
// UKI and the measurement policy.
func (b build) esp(ctx context.Context) error {
	img := b.path("esp.img")
	if err := truncate(img, layout[0].MiB*mib); err != nil {
		return err
	}
	if err := run(ctx, b.work, "mformat", "-i", img, "-F", "-N", espID, "-v", "ESP", "::"); err != nil {
		return err
	}
	for _, dir := range []string{"EFI", "EFI/BOOT", "EFI/Linux", "loader", "waxseal"} {
		if err := run(ctx, b.work, "mmd", "-i", img, "::/"+dir); err != nil {
			return err
		}
	}
	for _, name := range []string{"loader.conf", "policy.json"} {
		if err := b.extract(name, b.path(name)); err != nil {
			return err
		}
	}
	for _, f := range [][2]string{
		{filepath.Join(SystemdBoot, "systemd-bootx64.efi"), "EFI/BOOT/BOOTX64.EFI"},
		{b.path("uki.efi"), "EFI/Linux/" + UKI + ".efi"},
		{b.path("loader.conf"), "loader/loader.conf"},
		{b.path("policy.json"), "waxseal/policy.json"},
	} {
		if err := putESP(ctx, img, 0, f[0], f[1]); err != nil {
			return err
		}
	}
	return nil
}

// putESP copies file to path on the FAT file system at offset bytes in img,
// replacing what is there. mtools gives it the time of SOURCE_DATE_EPOCH.
func putESP(ctx context.Context, img string, offset int64, file, path string) error {
	return run(ctx, filepath.Dir(img), "mcopy", "-o", "-i", fmt.Sprintf("%s@@%d", img, offset), file, "::/"+path)
}

// conf writes the writable partition: the device's configuration, its
// start-up files and the owner's trust anchors.
func (b build) conf(ctx context.Context) error {
	tree := b.path("conf")
	if err := b.extractDir("conf", tree); err != nil {
		return err
	}
	for _, f := range []struct{ file, to, what string }{
		{b.spec.OwnerCA, "owner-ca.pem", "owner CA"},
		{b.spec.Approvers, "etc/waxseal/approvers.json", "approvers"},
		{b.spec.Mirrors, "etc/waxseal/mirrors.json", "authorised mirrors"},
	} {
		if f.file == "" {
			continue
		}
		if err := makeDirs(tree, filepath.Dir(f.to)); err != nil {
			return err
		}
		if err := copyFile(f.file, filepath.Join(tree, f.to), 0o644); err != nil {
			return fmt.Errorf("%s: %w", f.what, err)
		}
	}
	img := b.path("conf.img")
	if err := truncate(img, layout[2].MiB*mib); err != nil {
		return err
	}
	if err := run(ctx, b.work, "mke2fs", "-q", "-t", "ext4", "-F", "-L", "conf", "-U", confID,
		"-E", "hash_seed="+confHash+",lazy_itable_init=0,root_owner=0:0", "-b", "1024", img); err != nil {
		return err
	}
	return b.fillExt4(ctx, img, tree)
}

// fillExt4 copies tree into the empty ext4 image. mke2fs -d of 1.47.0 differs
// from run to run; debugfs under a fixed time does not.
func (b build) fillExt4(ctx context.Context, img, tree string) error {
	var script strings.Builder
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(tree, path)
		switch {
		case err != nil || rel == ".":
			return err
		case d.IsDir():
			fmt.Fprintf(&script, "mkdir /%s\n", rel)
		default:
			fmt.Fprintf(&script, "write %q /%s\nset_inode_field /%s mode 0100644\nset_inode_field /%s uid 0\nset_inode_field /%s gid 0\n", path, rel, rel, rel, rel)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return debugfs(ctx, img, script.String())
}

// debugfs runs commands on an ext4 image. debugfs itself exits 0 whatever
// happens, so what it says on standard error decides.
func debugfs(ctx context.Context, img, commands string) error {
	script, err := os.CreateTemp(filepath.Dir(img), "debugfs-")
	if err != nil {
		return err
	}
	defer os.Remove(script.Name())
	if _, err := script.WriteString(commands); err != nil {
		return err
	}
	if err := script.Close(); err != nil {
		return err
	}
	out, err := output(ctx, filepath.Dir(img), "sh", "-c", `debugfs -w -f "$1" "$2" 2>&1`, "sh", script.Name(), img)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		said := !strings.HasPrefix(line, "debugfs") && !strings.HasPrefix(line, "Allocated inode") && strings.TrimSpace(line) != ""
		if said {
			return fmt.Errorf("debugfs %s: %s", filepath.Base(img), strings.TrimSpace(line))
		}
	}
	return nil
}

// disk joins the partitions under a GPT.
func (b build) disk(ctx context.Context) error {
	img := b.path(DiskFile)
	total := int64(2)
	argv := []string{"sgdisk", "--clear", "--disk-guid=" + diskID}
	for i, p := range layout {
		argv = append(argv, fmt.Sprintf("--new=%d:%dM:+%dM", i+1, total-1, p.MiB),
			fmt.Sprintf("--typecode=%d:%s", i+1, p.Type), fmt.Sprintf("--partition-guid=%d:%s", i+1, p.ID),
			fmt.Sprintf("--change-name=%d:%s", i+1, p.Name))
		total += p.MiB
	}
	if err := truncate(img, total*mib); err != nil {
		return err
	}
	if err := run(ctx, b.work, append(argv, img)...); err != nil {
		return err
	}
	offset := int64(mib)
	for _, p := range layout {
		if err := writeAt(img, offset, b.path(p.File), p.MiB*mib); err != nil {
			return fmt.Errorf("partition %s: %w", p.Name, err)
		}
		offset += p.MiB * mib
	}
	return os.Rename(img, filepath.Join(b.out, DiskFile))
}

// direct writes what QEMU needs to start the kernel without firmware.
func (b build) direct(context.Context) error {
	kernel, err := b.kernel()
	if err != nil {
		return err
	}
	for _, f := range [][2]string{
		{kernel, KernelFile}, {b.path("initramfs.xz"), InitramfsFile}, {b.path("cmdline"), CmdlineFile},
	} {
		if err := copyFile(f[0], filepath.Join(b.out, f[1]), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(b.out, BoardFile), []byte(b.spec.Board+"\n"), 0o644)
}

// extract copies a file of the board's folder.
func (b build) extract(name, to string) error {
	data, err := fs.ReadFile(b.board, name)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}

// extractDir copies a folder of the board. Files under bin get the execute bit.
func (b build) extractDir(name, to string) error {
	return fs.WalkDir(b.board, name, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, name))
		if d.IsDir() {
			return makeDir(target)
		}
		data, err := fs.ReadFile(b.board, path)
		if err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if slices.Contains(strings.Split(path, "/"), "bin") {
			mode = 0o755
		}
		return writeFile(target, data, mode)
	})
}

// makeDir makes a folder that all may enter, whatever the umask.
func makeDir(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, 0o755)
}

// writeFile writes a file with just this mode, whatever the umask.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.WriteFile(path, data, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

func truncate(path string, size int64) error {
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return err
	}
	return os.Truncate(path, size)
}

func copyFile(from, to string, mode os.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return writeFile(to, data, mode)
}

// writeAt copies the file from into the image at offset; from must not be
// larger than room bytes.
func writeAt(img string, offset int64, from string, room int64) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if info.Size() > room {
		return fmt.Errorf("%s: %d bytes do not fit into %d", filepath.Base(from), info.Size(), room)
	}
	out, err := os.OpenFile(img, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := copySparse(out, offset, in); err != nil {
		return err
	}
	return out.Close()
}

// copySparse copies in to out at offset and leaves holes where in is zero.
func copySparse(out io.WriterAt, offset int64, in io.Reader) error {
	block, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(in, block)
		if n > 0 && !bytes.Equal(block[:n], zero[:n]) {
			if _, err := out.WriteAt(block[:n], offset); err != nil {
				return err
			}
		}
		offset += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
