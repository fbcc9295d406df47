package board

import (
	"errors"
	"testing"
	"testing/fstest"
)

func lab(partitions map[string]string) fstest.MapFS {
	root := fstest.MapFS{
		dmiVendor:  {Data: []byte("waxseal\n")},
		dmiProduct: {Data: []byte("qemu-amd64\n")},
	}
	for device, name := range partitions {
		root["sys/class/block/vda/"+device+"/uevent"] = &fstest.MapFile{Data: []byte("MAJOR=254\nDEVTYPE=partition\nPARTNAME=" + name + "\n")}
	}
	return root
}

func TestVolumeIsFoundByThePartitionsName(t *testing.T) {
	b, err := Find(lab(map[string]string{"vda1": "esp", "vda2": "root", "vda3": "conf"}))
	if err != nil {
		t.Fatal(err)
	}
	for volume, want := range map[string]string{ESP: "/dev/vda1", Root: "/dev/vda2", Conf: "/dev/vda3"} {
		if got, err := b.Device(volume); err != nil || got != want {
			t.Errorf("Device(%s) = %q, %v; want %q", volume, got, err, want)
		}
	}
}

func TestDoubledOrMissingPartitionIsRefused(t *testing.T) {
	for name, partitions := range map[string]map[string]string{
		"two of one name": {"vda1": "esp", "vda2": "esp"},
		"none":            {"vda1": "root"},
		"name in another": {"vda1": "espx"},
	} {
		b, err := Find(lab(partitions))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := b.Device(ESP); !errors.Is(err, ErrNoPartition) {
			t.Errorf("%s: Device(esp) = %q, %v; want ErrNoPartition", name, got, err)
		}
	}
}
