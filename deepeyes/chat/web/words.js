// The words of the page: English in the page and its code, Chinese here, by the language of the browser. What a model, a tool or the
// server says stays as it is.

const CHINESE = {
  "Skip to the question": "跳到提问框", "Pages": "页面", "Chat": "对话", "Replay": "回放", "Viewer": "查看器",
  "Switch between light and dark": "切换浅色与深色", "Ask about an image": "就图片提问",
  "Drop, paste or choose images, and ask. You see how the model thinks, what code it runs, and what it looks at.": "拖入、粘贴或选择图片，然后提问。模型怎样思考、运行什么代码、看了哪里，都会显示出来。",
  "Conversation": "对话", "Ask": "提问", "Images to send": "待发送的图片", "Ask a question": "输入问题", "Question": "问题",
  "Add images": "添加图片", "＋ Image": "＋ 图片", "Settings": "设置", "Of this conversation": "本次对话的设置", "Model": "模型", "Tools": "工具",
  "Temperature": "温度", "Turns": "轮数上限", "Tokens a reply": "每次回复的 token 数", "Seconds a cell": "每段代码的秒数",
  "A conversation keeps its settings.": "对话开始后设置不再改变。", "Begin another one": "另开一个对话", "to change them.": "即可修改。",
  "Stop": "停止", "Image at full size": "原尺寸图片", "Open alone": "单独打开", "Close": "关闭", "Drop images here": "把图片拖到这里",
  "Copy": "复制", "Copied": "已复制", "The browser refused": "浏览器拒绝了", "Copy answer": "复制答案", "Download": "下载", "Viewer ↗": "查看器 ↗",
  "Python": "Python", "Tool call": "工具调用", "Result": "结果", "Output": "输出", "Error": "错误", "Reply": "回复原文", "Refused": "未被接受",
  "System prompt": "系统提示词", "The model reads": "模型正在阅读", "Running {0}": "正在运行 {0}", "recorded in {0}": "记录在 {0}",
  "Turn {0}, {1}: as written": "第 {0} 轮，{1}：原文", "{0} tokens": "{0} 个 token", "{0} turns": "{0} 轮", "{0} s": "{0} 秒",
  "cut at its token limit": "达到 token 上限被截断", "Show at full size": "以原尺寸显示", "image, {0} by {1} pixels": "图片，{0} × {1} 像素",
  "An image that cannot be shown.": "这张图片无法显示。", "image {0}": "图片 {0}", "Remove image {0}": "移除图片 {0}",
  "answered": "已回答", "neither an answer nor a call": "既没有答案也没有调用工具", "no turns left": "轮数用完", "the context is full": "上下文已满",
  "no tokens left": "token 用完", "no time left for its programs": "程序时间用完", "failed": "失败", "stopped": "已停止",
  "Nothing is recorded yet. What you ask is recorded, and can then be replayed here.": "还没有记录。您的提问会被记录下来，之后可以在这里回放。",
  "Episode": "对话片段", "Answer": "答案", "End": "结束方式", "episode {0}": "片段 {0}", "{0} to {1} of {2}, newest first": "第 {0} 至 {1} 条，共 {2} 条，新的在前",
  "newer": "较新", "older": "较早", "All": "全部", "Step": "步骤", "Step back": "上一步", "Step on": "下一步", "Play": "播放", "▶ Play": "▶ 播放", "❚❚ Pause": "❚❚ 暂停", "{0} of {1}": "{0} / {1}",
  "The server has ended this conversation. What was said is recorded; begin another one.": "服务器已结束此对话。内容已记录；请另开一个对话。",
  "This conversation is not there any more. What was said is recorded; see Replay.": "此对话已不存在。内容已记录，见“回放”。",
  "The connection to the server is lost; trying again.": "与服务器的连接已断开，正在重试。", "The server does not answer: {0}": "服务器没有应答：{0}",
  "the server answered {0}": "服务器应答 {0}", "An image is still on its way; ask again in a moment.": "图片还在上传，请稍后再问。",
  "{0} has {1} MiB; an image may have {2}.": "{0} 有 {1} MiB；图片最大 {2} MiB。", "at most {0}": "最多 {0}",
};
const inChinese = navigator.language.toLowerCase().startsWith("zh");

// A text of ours in the reader's language, with values for {0}, {1} and so on.
export function say(text, ...values) {
  const said = inChinese ? (CHINESE[text] ?? text) : text;
  return said.replace(/\{(\d)\}/g, (_, index) => values[index]);
}

// What stands in the page itself.
export function translatePage() {
  if (!inChinese) return;
  document.documentElement.lang = "zh-CN";
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    if (text) walker.currentNode.data = walker.currentNode.data.replace(text, say(text));
  }
  for (const name of ["aria-label", "placeholder", "title"]) {
    for (const element of document.querySelectorAll(`[${name}]`)) element.setAttribute(name, say(element.getAttribute(name)));
  }
}
