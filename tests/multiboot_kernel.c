/* A Multiboot kernel that says on the first serial line what the boot loader gave it, and powers QEMU off. */
#include <stdint.h>

__attribute__((section(".multiboot"), used, aligned(4))) static const uint32_t header[3] = {
    0x1BADB002, 0x3, -(0x1BADB002 + 0x3)};

struct module {
    uint32_t start, end, string, reserved;
};

struct info {
    uint32_t flags, mem_lower, mem_upper, boot_device, command_line, module_count, modules;
};

static void out(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }

static uint8_t in(uint16_t port) {
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void character(char c) {
    while (!(in(0x3FD) & 0x20)) {
    }
    out(0x3F8, (uint8_t)c);
}

static void text(const char *s) {
    while (*s) {
        character(*s++);
    }
}

static void number(uint32_t value) {
    char digits[11];
    int at = 10;
    digits[10] = 0;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    text(digits + at);
}

static uint32_t checksum(const uint8_t *data, uint32_t length) { /* CRC-32, as zlib's */
    uint32_t crc = 0xFFFFFFFF;
    while (length--) {
        crc ^= *data++;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
        }
    }
    return ~crc;
}

void kernel(uint32_t magic, const struct info *info) {
    text("\nKERNEL ");
    number(magic == 0x2BADB002);
    text(" ");
    text(info->flags & 4 ? (const char *)info->command_line : "");
    text("\n");
    const struct module *modules = (const struct module *)info->modules;
    for (uint32_t i = 0; info->flags & 8 && i < info->module_count; i++) {
        text("MODULE ");
        number(modules[i].end - modules[i].start);
        text(" ");
        number(checksum((const uint8_t *)modules[i].start, modules[i].end - modules[i].start));
        text(" ");
        text((const char *)modules[i].string);
        text("\n");
    }
    text("DONE\n");
    out(0xF4, 0);
    for (;;) {
        __asm__ volatile("hlt");
    }
}

static uint8_t stack[16384] __attribute__((used, aligned(16)));

__asm__(".pushsection .text\n.globl start\nstart:\n cli\n mov $stack + 16384, %esp\n push %ebx\n push %eax\n"
        " call kernel\n.popsection\n");
