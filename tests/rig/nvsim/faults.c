// SPDX-License-Identifier: GPL-2.0-only
/* What goes wrong when somebody asked for it, and the counting of writes (README.md, debugfs). */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include "nvsim.h"

static const char * const names[DEEDS] = {
	[DEED_CREATE] = "create", [DEED_TYPE] = "type", [DEED_PARAMS] = "params",
	[DEED_REMOVE] = "remove", [DEED_NUMVFS] = "numvfs", [DEED_MIG] = "mig", [DEED_GI] = "gi",
	[DEED_CI] = "ci", [DEED_MIXED] = "mixed", [DEED_SCHEDULER] = "scheduler",
	[DEED_PLACEMENT] = "placement", [DEED_GPU_INSTANCE] = "gpu_instance",
	[DEED_OPEN] = "open", [DEED_NODE] = "node", [DEED_READ] = "read", [DEED_GPU] = "gpu",
};

static const struct {
	const char *name;
	int number;
} errnos[] = {
	{ "EPERM", EPERM }, { "ENOENT", ENOENT }, { "EIO", EIO }, { "ENXIO", ENXIO },
	{ "EAGAIN", EAGAIN }, { "ENOMEM", ENOMEM }, { "EACCES", EACCES }, { "EBUSY", EBUSY },
	{ "EEXIST", EEXIST }, { "ENODEV", ENODEV }, { "EINVAL", EINVAL }, { "ENOSPC", ENOSPC },
	{ "ERANGE", ERANGE }, { "EOPNOTSUPP", EOPNOTSUPP }, { "ETIMEDOUT", ETIMEDOUT },
};

struct fault {
	struct list_head node;
	enum deed deed;
	char bdf[16];			/* empty: on any card */
	bool hang;
	int error;			/* negative, or 0 and a code */
	unsigned int code;		/* of the resource manager */
	unsigned int count;
};

static LIST_HEAD(faults);
static DEFINE_SPINLOCK(faults_lock);
static DECLARE_WAIT_QUEUE_HEAD(healed);
static unsigned int heals;
static atomic_t writes[DEED_WRITES];
static u32 slow_ms;
static struct dentry *files[4];

static bool matches(const struct fault *fault, enum deed deed, struct nvsim_card *card)
{
	if (fault->bdf[0] && strcmp(fault->bdf, card->bdf))
		return false;
	return fault->deed == deed || fault->deed == DEED_GPU;
}

/* The fault that a deed meets, one hit less for the next; a card that hangs as a whole goes on hanging. */
static bool meet(enum deed deed, struct nvsim_card *card, struct fault *met, unsigned int *generation)
{
	struct fault *fault;
	bool found = false;

	spin_lock(&faults_lock);
	*generation = heals;
	list_for_each_entry(fault, &faults, node) {
		if (!matches(fault, deed, card))
			continue;
		*met = *fault;
		found = true;
		if (!(fault->hang && fault->deed == DEED_GPU) && !--fault->count) {
			list_del(&fault->node);
			kfree(fault);
		}
		break;
	}
	spin_unlock(&faults_lock);
	return found;
}

/* The driver stays loaded with somebody in it, and whoever waits cannot be killed. */
static void hang(unsigned int generation)
{
	__module_get(THIS_MODULE);
	wait_event(healed, READ_ONCE(heals) != generation);
	module_put(THIS_MODULE);
}

/*
 * To be called before a deed is done, without any lock.  `code` takes a code of the resource manager
 * where the deed can be refused with one; elsewhere that is EIO.
 */
int deed_begins(enum deed deed, struct nvsim_card *card, unsigned int *code)
{
	unsigned int generation;
	struct fault fault;

	if (deed < DEED_WRITES)
		atomic_inc(&writes[deed]);
	if (slow_ms && (deed == DEED_CREATE || deed == DEED_TYPE || deed == DEED_REMOVE))
		msleep(slow_ms);
	while (meet(deed, card, &fault, &generation)) {
		if (fault.hang) {
			hang(generation);
			continue;
		}
		if (!fault.code)
			return fault.error;
		if (!code)
			return -EIO;
		*code = fault.code;
		return 0;
	}
	return 0;
}

static int parse_deed(const char *word)
{
	return match_string(names, DEEDS, word);
}

static int parse_error(struct fault *fault, const char *word)
{
	size_t i;

	if (!strncmp(word, "0x", 2))
		return kstrtouint(word, 16, &fault->code);
	for (i = 0; i < ARRAY_SIZE(errnos); i++) {
		if (!strcmp(errnos[i].name, word)) {
			fault->error = -errnos[i].number;
			return 0;
		}
	}
	return -EINVAL;
}

static void heal(const struct fault *like)
{
	struct fault *fault, *next;

	spin_lock(&faults_lock);
	list_for_each_entry_safe(fault, next, &faults, node) {
		if (like && (fault->hang != like->hang || fault->deed != like->deed ||
			     (like->bdf[0] && strcmp(like->bdf, fault->bdf))))
			continue;
		list_del(&fault->node);
		kfree(fault);
	}
	spin_unlock(&faults_lock);
}

static void heal_hangs(void)
{
	struct fault *fault, *next;

	spin_lock(&faults_lock);
	list_for_each_entry_safe(fault, next, &faults, node) {
		if (fault->hang) {
			list_del(&fault->node);
			kfree(fault);
		}
	}
	heals++;
	spin_unlock(&faults_lock);
	wake_up_all(&healed);
}

static int add(const struct fault *fault)
{
	struct fault *copy = kmemdup(fault, sizeof(*fault), GFP_KERNEL);

	if (!copy)
		return -ENOMEM;
	spin_lock(&faults_lock);
	list_add_tail(&copy->node, &faults);
	spin_unlock(&faults_lock);
	return 0;
}

#define WORDS	4

/* At most four words, ended by NULL; `line` is cut up for them. */
static int split(char *line, char *words[WORDS + 1])
{
	char *word;
	int count = 0;

	line = strim(line);
	memset(words, 0, (WORDS + 1) * sizeof(*words));
	while ((word = strsep(&line, " ")))
		if (*word && count++ < WORDS)
			words[count - 1] = word;
	return count > WORDS ? -EINVAL : count;
}

static ssize_t take_line(const char __user *user, size_t count, char *line, size_t size)
{
	if (count >= size)
		return -EINVAL;
	if (copy_from_user(line, user, count))
		return -EFAULT;
	line[count] = 0;
	return 0;
}

/* "WHAT ERRNO COUNT [BDF]" */
static ssize_t fail_write(struct file *file, const char __user *user, size_t count, loff_t *position)
{
	struct fault fault = { };
	char line[64], *words[WORDS + 1];
	int ret = take_line(user, count, line, sizeof(line));

	if (ret)
		return ret;
	ret = split(line, words);
	if (ret < 3)
		return -EINVAL;
	ret = parse_deed(words[0]);
	if (ret < 0)
		return ret;
	fault.deed = ret;
	ret = parse_error(&fault, words[1]);
	if (!ret)
		ret = kstrtouint(words[2], 10, &fault.count);
	if (ret)
		return ret;
	if (words[3] && strscpy(fault.bdf, words[3], sizeof(fault.bdf)) < 0)
		return -EINVAL;
	if (fault.count)
		ret = add(&fault);
	else
		heal(&fault);
	return ret ? ret : count;
}

/* "WHAT [BDF]" or "none" */
static ssize_t hang_write(struct file *file, const char __user *user, size_t count, loff_t *position)
{
	struct fault fault = { .hang = true, .count = 1 };
	char line[64], *words[WORDS + 1];
	int ret = take_line(user, count, line, sizeof(line));

	if (ret)
		return ret;
	ret = split(line, words);
	if (ret < 1 || ret > 2)
		return -EINVAL;
	if (!strcmp(words[0], "none")) {
		heal_hangs();
		return count;
	}
	ret = parse_deed(words[0]);
	if (ret < 0)
		return ret;
	fault.deed = ret;
	if (words[1] && strscpy(fault.bdf, words[1], sizeof(fault.bdf)) < 0)
		return -EINVAL;
	ret = add(&fault);
	return ret ? ret : count;
}

static int faults_show(struct seq_file *file, void *unused)
{
	struct fault *fault;

	spin_lock(&faults_lock);
	list_for_each_entry(fault, &faults, node) {
		seq_printf(file, "%s ", names[fault->deed]);
		if (fault->hang)
			seq_puts(file, "hang");
		else if (fault->code)
			seq_printf(file, "0x%x", fault->code);
		else
			seq_printf(file, "%d", fault->error);
		seq_printf(file, " %u %s\n", fault->count, fault->bdf);
	}
	spin_unlock(&faults_lock);
	return 0;
}

static int faults_open(struct inode *inode, struct file *file)
{
	return single_open(file, faults_show, NULL);
}

static int writes_show(struct seq_file *file, void *unused)
{
	int deed;

	for (deed = 0; deed < DEED_WRITES; deed++)
		seq_printf(file, "%s %d\n", names[deed], atomic_read(&writes[deed]));
	return 0;
}

static int writes_open(struct inode *inode, struct file *file)
{
	return single_open(file, writes_show, NULL);
}

static ssize_t writes_write(struct file *file, const char __user *user, size_t count, loff_t *position)
{
	int deed;

	for (deed = 0; deed < DEED_WRITES; deed++)
		atomic_set(&writes[deed], 0);
	return count;
}

#define FILE_OPERATIONS(name, opener, writer)		\
static const struct file_operations name = {		\
	.owner = THIS_MODULE,				\
	.open = opener,					\
	.read = seq_read,				\
	.write = writer,				\
	.llseek = seq_lseek,				\
	.release = single_release,			\
}

FILE_OPERATIONS(fail_ops, faults_open, fail_write);
FILE_OPERATIONS(hang_ops, faults_open, hang_write);
FILE_OPERATIONS(writes_ops, writes_open, writes_write);

int faults_init(void)
{
	struct dentry *root = nvsim_debugfs();

	files[0] = debugfs_create_file("fail", 0600, root, NULL, &fail_ops);
	files[1] = debugfs_create_file("hang", 0600, root, NULL, &hang_ops);
	files[2] = debugfs_create_file("writes", 0600, root, NULL, &writes_ops);
	debugfs_create_u32("slow_ms", 0600, root, &slow_ms);
	files[3] = debugfs_lookup("slow_ms", root);
	return 0;
}

void faults_exit(void)
{
	size_t i;

	dput(files[3]);
	for (i = 0; i < ARRAY_SIZE(files); i++)
		debugfs_remove(files[i]);
	heal(NULL);
}
