package boot_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"waxseal/boot"
)

// benchTree is a tree of 64 MiB: a UKI, boot loaders, configuration.
func benchTree(b *testing.B) (root string, size int64) {
	b.Helper()
	root = b.TempDir()
	files := map[string][]byte{
		"EFI/Linux/waxseal.efi": kernelImage(string(bytes.Repeat([]byte("kernel.."), 2<<20)), string(bytes.Repeat([]byte("initrd.."), 1<<20)), "quiet"),
	}
	for i := range 20 {
		files[fmt.Sprintf("loader/l%02d", i)] = bytes.Repeat([]byte("loader.."), 1<<18)
	}
	for i := range 32 {
		files[fmt.Sprintf("etc/cron.d/job%02d", i)] = bytes.Repeat([]byte("# an ordinary line of text\n"), 100)
	}
	for name, content := range files {
		size += int64(len(content))
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(name, content, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return root, size
}

// BenchmarkRead is the floor: the same bytes read, and no more.
func BenchmarkRead(b *testing.B) {
	root, size := benchTree(b)
	buf := make([]byte, 1<<20)
	b.SetBytes(size)
	for b.Loop() {
		readAll(b, root, io.Discard, buf)
	}
}

// BenchmarkReadAndHash is what one thread can do: read, and hash once.
func BenchmarkReadAndHash(b *testing.B) {
	root, size := benchTree(b)
	buf := make([]byte, 1<<20)
	b.SetBytes(size)
	for b.Loop() {
		readAll(b, root, sha256.New(), buf)
	}
}

func readAll(b *testing.B, root string, to io.Writer, buf []byte) {
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{f}, buf)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

func BenchmarkMeasure(b *testing.B) {
	root, size := benchTree(b)
	tree, err := boot.OpenTree(root)
	if err != nil {
		b.Fatal(err)
	}
	defer tree.Close()
	items := []string{`{"kind":"uki","volume":"esp","path":"EFI/Linux/waxseal.efi"}`, `{"kind":"startup","volume":"esp","paths":["etc/cron.d/*"]}`}
	for i := range 20 {
		items = append(items, fmt.Sprintf(`{"kind":"file","class":"bootloader","volume":"esp","path":"loader/l%02d"}`, i))
	}
	raw, src := policy(items...), router(map[string]fs.FS{"esp": tree})
	b.SetBytes(size)
	for b.Loop() {
		if err := boot.Measure(b.Context(), raw, src, &tape{}); err != nil {
			b.Fatal(err)
		}
	}
}
