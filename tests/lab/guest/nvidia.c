/* Stands for NVIDIA's kernel module on a machine without a GPU, where the real one refuses to be loaded: it says which
   version it is, the way that NVIDIA's does. */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

static int show(struct seq_file *file, void *unused)
{
	seq_puts(file, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  " STAND_IN "  Wed Jul  2 14:35:34 UTC 2025\n");
	return 0;
}

static int __init begin(void)
{
	if (!proc_mkdir("driver/nvidia", NULL) || !proc_create_single("driver/nvidia/version", 0444, NULL, show))
		return -ENOMEM;
	return 0;
}

static void __exit end(void)
{
	remove_proc_subtree("driver/nvidia", NULL);
}

module_init(begin);
module_exit(end);
MODULE_LICENSE("GPL");
MODULE_VERSION(STAND_IN);
